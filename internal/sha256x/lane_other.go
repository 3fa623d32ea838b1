//go:build !amd64 || purego

package sha256x

const accelerated = false

// Where nothing is accelerated, lanes are never used.
type (
	lane  struct{ state state }
	lanes struct{}
	state struct{}
)

func (s *state) put(*[Size]byte)       {}
func (l *lane) start([]byte)           {}
func (l *lane) finish([]byte)          {}
func together(_, _ *lane, _, _ []byte) {}
func (q *lanes) spans([]byte, []Span)  {}

func (t *Trails) sum([][Size]byte, [][]byte)           {}
func (t *Trails) resume(int, []byte, int, *[Size]byte) {}
func shorts([]uint32, []Short)                         {}
