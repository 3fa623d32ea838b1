//go:build libsecp256k1 && cgo

package keys

/*
#cgo pkg-config: libsecp256k1
#cgo noescape baro_parse
#cgo nocallback baro_parse
#cgo noescape baro_serialize
#cgo nocallback baro_serialize
#cgo noescape baro_public
#cgo nocallback baro_public
#cgo noescape baro_verify
#cgo nocallback baro_verify
#cgo noescape baro_sign
#cgo nocallback baro_sign
#include <string.h>
#include <secp256k1.h>
#if defined(__APPLE__)
#include <sys/random.h>
#elif !defined(_WIN32)
#include <unistd.h>
#endif

static secp256k1_context *baro_context;

// The library signs in constant time; on top of that, a context can be blinded with random bytes.
static int baro_init(void) {
	baro_context = secp256k1_context_create(SECP256K1_CONTEXT_SIGN | SECP256K1_CONTEXT_VERIFY);
	if (baro_context == NULL) {
		return 0;
	}
#if !defined(_WIN32)
	unsigned char seed[32];
	if (getentropy(seed, sizeof seed) != 0 || !secp256k1_context_randomize(baro_context, seed)) {
		return 0;
	}
#endif
	return 1;
}

static int baro_parse(unsigned char *key, const unsigned char *point, size_t size) {
	return secp256k1_ec_pubkey_parse(baro_context, (secp256k1_pubkey *)key, point, size);
}

static void baro_write(const secp256k1_pubkey *key, unsigned char *point, size_t size) {
	secp256k1_ec_pubkey_serialize(baro_context, point, &size, key,
		size == 33 ? SECP256K1_EC_COMPRESSED : SECP256K1_EC_UNCOMPRESSED);
}

static void baro_serialize(const unsigned char *key, unsigned char *point, size_t size) {
	baro_write((const secp256k1_pubkey *)key, point, size);
}

// Makes the uncompressed public key of a private one.
static int baro_public(const unsigned char *scalar, unsigned char *point) {
	secp256k1_pubkey key;
	if (!secp256k1_ec_pubkey_create(baro_context, &key, scalar)) {
		return 0;
	}
	baro_write(&key, point, 65);
	return 1;
}

static int baro_verify(const unsigned char *key, const unsigned char *digest, const unsigned char *compact) {
	secp256k1_ecdsa_signature sig;
	return secp256k1_ecdsa_signature_parse_compact(baro_context, &sig, compact) &&
		secp256k1_ecdsa_verify(baro_context, &sig, digest, (const secp256k1_pubkey *)key);
}

// Signs with the nonce of RFC 6979, which is what the library does unless told otherwise; s comes out low.
static int baro_sign(const unsigned char *scalar, const unsigned char *digest, unsigned char *compact) {
	secp256k1_ecdsa_signature sig;
	return secp256k1_ecdsa_sign(baro_context, &sig, digest, scalar, NULL, NULL) &&
		secp256k1_ecdsa_signature_serialize_compact(baro_context, compact, &sig);
}
*/
import "C"

import (
	"errors"
	"unsafe"
)

// K256Library names what computes on the curve K256 in this build: "go", or with the build tag libsecp256k1 "libsecp256k1".
const K256Library = "libsecp256k1"

func init() {
	if C.baro_init() == 0 {
		panic("keys: libsecp256k1 gave no context")
	}
}

// k256Public is the library's form of a public key.
type k256Public [64]byte

func char(b *byte) *C.uchar { return (*C.uchar)(unsafe.Pointer(b)) }

func (p *k256Public) setBytes(point []byte) bool {
	return C.baro_parse(char(&p[0]), char(&point[0]), C.size_t(len(point))) == 1
}

func (p *k256Public) compressed() (b [compressedSize]byte) {
	C.baro_serialize(char(&p[0]), char(&b[0]), compressedSize)
	return b
}

func (p *k256Public) uncompressed() (b [fullSize]byte) {
	C.baro_serialize(char(&p[0]), char(&b[0]), fullSize)
	return b
}

func (p *k256Public) verify(digest *[32]byte, sig *[SignatureSize]byte) bool {
	return C.baro_verify(char(&p[0]), char(&digest[0]), char(&sig[0])) == 1
}

// k256Private is a private key.
type k256Private [scalarSize]byte

// setBytes reports whether the scalar is in range, and returns the public key.
func (k *k256Private) setBytes(scalar *[scalarSize]byte) (point [fullSize]byte, ok bool) {
	*k = *scalar
	ok = C.baro_public(char(&k[0]), char(&point[0])) == 1
	return point, ok
}

func (k *k256Private) sign(digest *[32]byte, sig *[SignatureSize]byte) error {
	if C.baro_sign(char(&k[0]), char(&digest[0]), char(&sig[0])) != 1 {
		return errors.New("libsecp256k1 failed")
	}
	return nil
}
