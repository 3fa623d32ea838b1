package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/barograph/baro/data"
)

// Records are written by strangers. In JSON and in tables, characters that a terminal would obey instead of showing are
// escaped: those of the C1 range, and those that change the direction of text.

// obeyed reports whether a terminal or a reader's eye may be misled by a character.
func obeyed(r rune) bool {
	switch {
	case r < ' ' && r != '\n' && r != '\t', r >= 0x7f && r < 0xa0:
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x2028, r == 0x2029, r == 0xfeff:
		return true
	}
	return r >= 0xe0000 && r <= 0xe007f // invisible twins of ASCII
}

// inertJSON escapes in JSON what a terminal would obey. The value stays the same.
func inertJSON(b []byte) []byte {
	i := 0
	for i < len(b) && (b[i] < 0x7f) {
		i++
	}
	if i == len(b) {
		return b
	}
	out := append(make([]byte, 0, len(b)+16), b[:i]...)
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case !obeyed(r):
			out = append(out, b[i:i+n]...)
		case r > 0xffff:
			hi, lo := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += n
	}
	return out
}

// inert makes text of strangers safe for a line of output.
func inert(s string) string {
	var b strings.Builder
	for _, r := range s {
		if obeyed(r) || r == '\n' || r == '\t' || !unicode.IsPrint(r) && r != ' ' {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// printJSON prints a value as one line of JSON.
func (e *env) printJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encoding the output: %w", err)
	}
	_, err := e.stdout.Write(inertJSON(b.Bytes()))
	return err
}

// indentRecord returns a record in the JSON that people read.
func indentRecord(raw data.Raw) ([]byte, error) {
	b, err := data.AppendJSON(nil, raw)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colors paints on a terminal, unless NO_COLOR is set.
type colors bool

func colorsOf(w io.Writer) colors {
	return colors(isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func (c colors) paint(code, s string) string {
	if !c {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (c colors) good(s string) string { return c.paint("32", s) }
func (c colors) bad(s string) string  { return c.paint("31", s) }
func (c colors) dim(s string) string  { return c.paint("2", s) }

// bytesOf writes a number of bytes for people.
func bytesOf(n int64) string {
	const units = "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 999.95 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
