package mailer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/world"
)

// Folder keeps each mail as a file that mail programs read, newest last by name, for networks on one machine. Only the owner of the
// process can read them. The newest [MaxFiles] are kept.
type Folder struct {
	dir  string
	from mail.Address
	w    world.World
	// Sent is told of each mail that was written, and of its file. It is set before the first mail.
	Sent func(m *Message, path string)

	mu    sync.Mutex
	last  string   // name of the newest mail
	names []string // of all mails, the oldest first; nil until the folder was read
}

// MaxFiles is how many mails a [Folder] keeps.
const MaxFiles = 1000

const (
	mailSuffix    = ".eml"
	headerPurpose = "X-Baro-Purpose"
	headerCode    = "X-Baro-Code"
)

// mailName is a time, a number that tells mails of one time apart, and the suffix.
var mailName = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9]{6}\.eml$`)

// NewFolder makes a sender that writes to a folder, which is made with the first mail.
func NewFolder(dir, from string, w world.World) (*Folder, error) {
	a, err := parseFrom(from)
	if err != nil {
		return nil, err
	}
	return &Folder{dir: dir, from: a, w: w}, nil
}

// Anyone is true.
func (f *Folder) Anyone() bool { return true }

// Dir is the folder.
func (f *Folder) Dir() string { return f.dir }

// Send writes a file, which is whole when it has its name.
func (f *Folder) Send(_ context.Context, m *Message) error {
	if err := m.check(); err != nil {
		return err
	}
	if strings.ContainsAny(m.To+m.Purpose+m.Code, "\r\n") {
		return refusedf("the address is not one line")
	}
	f.mu.Lock()
	path, err := f.write(m)
	f.mu.Unlock()
	if err != nil {
		return &Error{Err: err}
	}
	if f.Sent != nil {
		f.Sent(m, path)
	}
	return nil
}

func (f *Folder) write(m *Message) (path string, err error) {
	fs := f.w.FS
	if err := world.MkdirAll(fs, f.dir); err != nil {
		return "", err
	}
	if f.names == nil {
		if f.names, err = f.list(); err != nil {
			return "", err
		}
		if n := len(f.names); n > 0 {
			f.last = f.names[n-1]
		}
	}
	at := f.w.Clock.Now().UTC()
	name := at.Format("20060102T150405.000000Z") + "-000000" + mailSuffix
	if name <= f.last { // the clock stands, or went back
		base, number, _ := strings.Cut(strings.TrimSuffix(f.last, mailSuffix), "-")
		n, err := strconv.Atoi(number)
		if err != nil {
			return "", fmt.Errorf("%s is no name of a mail", f.last)
		}
		name = fmt.Sprintf("%s-%06d%s", base, n+1, mailSuffix)
	}
	head := ""
	if m.Purpose != "" {
		head = headerPurpose + ": " + m.Purpose + "\r\n" + headerCode + ": " + m.Code + "\r\n"
	}
	body := append([]byte(head), m.encode(f.from, strings.TrimSuffix(name, mailSuffix), at)...)
	path = fs.PathJoin(f.dir, name)
	tmp := path + ".new"
	file, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return "", err
	}
	if file.Fd() != vfs.InvalidFd {
		err = os.Chmod(tmp, 0o600) // before anything is in it
	}
	if err == nil {
		_, err = file.Write(body)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	if err := fs.Rename(tmp, path); err != nil {
		return "", err
	}
	f.last = name
	f.names = append(f.names, name)
	for len(f.names) > MaxFiles {
		if err := fs.Remove(fs.PathJoin(f.dir, f.names[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		f.names = f.names[1:]
	}
	return path, nil
}

func (f *Folder) list() ([]string, error) {
	names, err := f.w.FS.List(f.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !mailName.MatchString(n) })
	slices.Sort(names)
	return append([]string{}, names...), nil
}

// Mails reads the mails of the folder, the oldest first.
func (f *Folder) Mails() ([]Message, error) {
	names, err := f.list()
	if err != nil {
		return nil, fmt.Errorf("reading mails: %w", err)
	}
	var out []Message
	for _, name := range names {
		m, err := f.read(f.w.FS.PathJoin(f.dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // an old one that went meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("reading the mail %s: %w", name, err)
		}
		out = append(out, *m)
	}
	return out, nil
}

func (f *Folder) read(path string) (*Message, error) {
	file, err := f.w.FS.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m, err := mail.ReadMessage(io.LimitReader(file, 8*MaxText))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		return nil, err
	}
	h := m.Header
	subject, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	if err != nil {
		return nil, err
	}
	return &Message{
		To: h.Get("To"), Subject: subject, Text: strings.ReplaceAll(string(text), "\r\n", "\n"),
		HTML: strings.HasPrefix(h.Get("Content-Type"), "text/html"), Purpose: h.Get(headerPurpose), Code: h.Get(headerCode),
	}, nil
}
