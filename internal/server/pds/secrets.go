package pds

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/keys"
)

// secrets are what must never leave this server. Each is a file of its own below <dir>/secrets, readable by the owner only, so that a backup
// of the store doesn't hold what opens it.
type secrets struct {
	session  []byte           // signs session tokens
	sealing  cipher.AEAD      // seals signing keys in the store
	digest   []byte           // key of the digests of what is no longer kept
	rotation *keys.PrivateKey // signs operations on the PLC identities made here
	random   func([]byte)
}

const secretSize = 32

// openSecrets reads the secrets, or makes them on the first start.
func (s *Service) openSecrets() error {
	it := s.store.Iter([]byte(rowAccount), kv.PrefixEnd([]byte(rowAccount)))
	used := it.First()
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return fmt.Errorf("looking for accounts: %w", err)
	}
	sec := &s.accounts.secrets
	sec.random = s.random
	// The session secret can be replaced at the price of signing everybody out. The other two can't be made again.
	session, err := s.secret("session.key", false)
	if err != nil {
		return err
	}
	sealing, err := s.secret("sealing.key", used)
	if err != nil {
		return err
	}
	rotation, err := s.secret("plc-rotation.key", used)
	if err != nil {
		return err
	}
	sec.session = session
	sum := hmac.New(sha256.New, sealing)
	sum.Write([]byte("baro pds: digests"))
	sec.digest = sum.Sum(nil)
	block, err := aes.NewCipher(sealing)
	if err != nil {
		return fmt.Errorf("sealing key: %w", err)
	}
	if sec.sealing, err = cipher.NewGCM(block); err != nil {
		return fmt.Errorf("sealing key: %w", err)
	}
	if sec.rotation, err = keys.NewPrivate(keys.K256, rotation); err != nil {
		return fmt.Errorf("PLC rotation key: %w", err)
	}
	return nil
}

// secret reads a secret file or makes it; mustExist says that making it anew would orphan what it has opened so far.
func (s *Service) secret(name string, mustExist bool) ([]byte, error) {
	value := make([]byte, secretSize)
	if s.cfg.Memory {
		s.random(value)
		return value, nil
	}
	text, path, err := s.readSecret(name)
	switch {
	case err != nil:
		return nil, err
	case text != "":
		value, err := hex.DecodeString(text)
		if err != nil || len(value) != secretSize {
			return nil, fmt.Errorf("secret %s: want %d bytes in hex", path, secretSize)
		}
		return value, nil
	case mustExist:
		return nil, fmt.Errorf("secret %s is missing, but there are accounts that need it: restore it from where the secrets are kept", path)
	}
	s.random(value)
	return value, s.saveSecret(path, hex.EncodeToString(value))
}

// readSecret reads a file of a secret; the text is empty if there is none.
func (s *Service) readSecret(name string) (text, path string, err error) {
	fs := s.world.FS
	path = fs.PathJoin(s.cfg.Dir, "secrets", name)
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", path, nil
	}
	if err != nil {
		return "", path, fmt.Errorf("reading secret: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr, f.Close()); err != nil {
		return "", path, fmt.Errorf("reading secret %s: %w", path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && f.Fd() != vfs.InvalidFd {
		s.world.Log.Warn("a secret is readable by others: chmod 600 it", "file", path, "mode", mode.String())
	}
	if text = strings.TrimSpace(string(b)); text == "" {
		return "", path, fmt.Errorf("secret %s is empty", path)
	}
	return text, path, nil
}

func (s *Service) saveSecret(path, text string) error {
	if err := writeSecret(s.world.FS, filepath.Dir(path), path, []byte(text+"\n")); err != nil {
		return fmt.Errorf("writing secret %s: %w", path, err)
	}
	return nil
}

// adminPasswordFile holds the operator's password when the configuration has none.
const adminPasswordFile = "admin.password"

// openAdmin finds the operator's password: in the configuration, else in its file, else it makes one. Without a folder there is nobody to
// tell it to, and so no administration.
func (s *Service) openAdmin() error {
	if s.cfg.AdminPassword != "" || s.cfg.Memory {
		return nil
	}
	text, path, err := s.readSecret(adminPasswordFile)
	if err != nil {
		return err
	}
	if text == "" {
		text = s.randomName(20)
		if err := s.saveSecret(path, text); err != nil {
			return err
		}
		s.madeAdmin = path
	}
	if len(text) < minPassword {
		return fmt.Errorf("secret %s: want a password of %d characters or more", path, minPassword)
	}
	s.cfg.AdminPassword = text
	return nil
}

// MadeAdminPassword is the file in which this start of the service has put a new password of the operator; "" if there was one.
func (s *Service) MadeAdminPassword() string { return s.madeAdmin }

// AdminPassword is the operator's password, "" if there is no administration.
func (s *Service) AdminPassword() string { return s.cfg.AdminPassword }

// writeSecret makes a file that is durable, whole, and the owner's alone before the secret is in it.
func writeSecret(fs vfs.FS, dir, path string, text []byte) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if f.Fd() != vfs.InvalidFd {
		err = os.Chmod(tmp, 0o600)
	}
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(tmp, path); err != nil {
		return err
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		h, err := fs.OpenDir(d)
		if err != nil {
			return err
		}
		if err := errors.Join(h.Sync(), h.Close()); err != nil {
			return err
		}
	}
	return nil
}

// seal encrypts a value for the store; context says what it is, and has to be the same when it is opened.
func (s *secrets) seal(value []byte, context string) []byte {
	nonce := make([]byte, s.sealing.NonceSize(), s.sealing.NonceSize()+len(value)+s.sealing.Overhead())
	s.random(nonce)
	return s.sealing.Seal(nonce, nonce, value, []byte(context))
}

func (s *secrets) open(sealed []byte, context string) ([]byte, error) {
	n := s.sealing.NonceSize()
	if len(sealed) < n {
		return nil, errCorrupt
	}
	value, err := s.sealing.Open(nil, sealed[:n], sealed[n:], []byte(context))
	if err != nil {
		return nil, fmt.Errorf("sealed value: %w", errCorrupt)
	}
	return value, nil
}

// random fills b. Without randomness nothing here is safe, so there is no way to go on without it.
func (s *Service) random(b []byte) {
	s.accounts.randMu.Lock()
	defer s.accounts.randMu.Unlock()
	if _, err := io.ReadFull(s.world.Rand, b); err != nil {
		panic("pds: no randomness: " + err.Error())
	}
}

// randomReader is the service's randomness for those who want a reader.
type randomReader struct{ s *Service }

func (r randomReader) Read(b []byte) (int, error) {
	r.s.random(b)
	return len(b), nil
}

var nameEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// randomName is n random bytes in lower-case base32.
func (s *Service) randomName(n int) string {
	b := make([]byte, n)
	s.random(b)
	return nameEncoding.EncodeToString(b)
}
