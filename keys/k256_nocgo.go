//go:build libsecp256k1 && !cgo

package keys

// Whoever asks for the C library and builds without cgo gets this line as the error.
var _ = the_build_tag_libsecp256k1_needs_cgo
