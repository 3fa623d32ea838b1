//go:build amd64 && !purego

package secp256k1

func (z *element) mul(x, y *element) { mulGeneric(z, x, y) }
func (z *element) square(x *element) { squareGeneric(z, x) }
