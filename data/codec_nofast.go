//go:build purego

package data

// Without codec_fast.go everything is done by reflection.

type (
	fastPlan  struct{}
	fastField struct{}
)

func (*node) prepare() {}

func appendFast([]byte, any, int) ([]byte, bool) { return nil, false }

func decodeFast(b []byte, shared bool, v any, depth int) bool { return false }
