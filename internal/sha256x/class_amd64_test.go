//go:build !purego

package sha256x

import "testing"

// Only messages of a class that is one number of blocks are hashed in step: the class of others, however long, is another.
func TestClass(t *testing.T) {
	for _, size := range []int{0, 55, 56, 64, 119, 1000, 30*blockSize + 55, 30*blockSize + 56, 1 << 20, maxMessage, maxMessage + 1, 1<<32 - 9, 1<<32 - 8, 1 << 32, 1<<32 + 300, 1<<38 + 1} {
		blocks := (size+8)/blockSize + 1
		if got := int(class(&Span{End: size})); blocks < exact && got != blocks || blocks >= exact && got < exact {
			t.Errorf("%d bytes, %d blocks: class %d", size, blocks, got)
		}
	}
}
