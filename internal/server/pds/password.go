package pds

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Password lengths, in bytes.
const (
	minPassword = 8
	maxPassword = 256
)

const (
	defaultPasswordMemory = 12 << 10 // KiB
	passwordTime          = 3
	hashSize              = 32
	saltSize              = 16
	// maxHashing is how many hashes are computed at once: what bounds the memory they take together.
	maxHashing = 2
	// maxHashQueue is how many wait for their turn before callers are turned away.
	maxHashQueue = 128
)

var errBusy = errors.New("too many sign-ins at once")

// passwords hashes and checks passwords with argon2id, in a bounded number at a time.
type passwords struct {
	memory uint32
	turn   chan struct{}
	queue  chan struct{}
	// dummy is the hash of nobody's password. It is checked for names that don't exist, so that they take as long as others.
	dummy string
	// derive is argon2.IDKey; a test counts the work through it.
	derive func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte
}

func newPasswords(random io.Reader, memory uint32) (*passwords, error) {
	if memory == 0 {
		memory = defaultPasswordMemory
	}
	p := &passwords{memory: memory, turn: make(chan struct{}, maxHashing), queue: make(chan struct{}, maxHashQueue), derive: argon2.IDKey}
	nobody := make([]byte, saltSize+hashSize)
	if _, err := io.ReadFull(random, nobody); err != nil {
		return nil, fmt.Errorf("preparing password checks: %w", err)
	}
	// Nothing hashes to it that anyone could find, and making it costs nothing at start.
	p.dummy = p.format(nobody[:saltSize], nobody[saltSize:])
	return p, nil
}

func (p *passwords) format(salt, hash []byte) string {
	e := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, p.memory, passwordTime, e.EncodeToString(salt), e.EncodeToString(hash))
}

// enter waits for a turn to hash.
func (p *passwords) enter(ctx context.Context) (leave func(), err error) {
	select {
	case p.queue <- struct{}{}:
	default:
		return nil, errBusy
	}
	defer func() { <-p.queue }()
	select {
	case p.turn <- struct{}{}:
		return func() { <-p.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hash gives the encoded hash of a password with the given salt.
func (p *passwords) hash(ctx context.Context, password string, salt []byte) (string, error) {
	leave, err := p.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	return p.format(salt, p.derive([]byte(password), salt, passwordTime, p.memory, 1, hashSize)), nil
}

// verify reports whether password matches an encoded hash. With an empty hash it takes as long and says no.
func (p *passwords) verify(ctx context.Context, encoded, password string) (bool, error) {
	exists := encoded != "" && len(password) <= maxPassword
	if !exists {
		encoded, password = p.dummy, "nobody's password"
	}
	var version int
	var memory, time uint32
	var threads uint8
	params, saltAndHash, ok := cutParams(encoded)
	if _, err := fmt.Sscanf(params, "$argon2id$v=%d$m=%d,t=%d,p=%d", &version, &memory, &time, &threads); err != nil || !ok || version != argon2.Version {
		return false, fmt.Errorf("password hash: %w", errCorrupt)
	}
	saltText, hashText, _ := strings.Cut(saltAndHash, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(saltText)
	want, err2 := base64.RawStdEncoding.DecodeString(hashText)
	if err1 != nil || err2 != nil || len(want) == 0 || memory > 1<<20 || time == 0 || time > 64 || threads == 0 {
		return false, fmt.Errorf("password hash: %w", errCorrupt)
	}
	leave, err := p.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	got := p.derive([]byte(password), salt, time, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && exists, nil
}

// cutParams splits an encoded hash before its salt.
func cutParams(encoded string) (params, rest string, ok bool) {
	at := 0
	for range 4 {
		i := strings.IndexByte(encoded[at:], '$')
		if i < 0 {
			return "", "", false
		}
		at += i + 1
	}
	return encoded[:at-1], encoded[at:], true
}
