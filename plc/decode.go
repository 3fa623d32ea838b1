package plc

import (
	"unicode/utf16"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// fields collects the top-level fields of an operation from either form; both readers fill it by name.
type fields struct {
	seen       map[string]bool
	texts      map[string]string // sig, type, prev and the fields of the old form
	prevIsNull bool
	data       Data
}

// ParseJSON reads the JSON form of a signed operation. It is strict: unknown, repeated and missing fields, wrong types, lone
// surrogates, invalid UTF-8 and anything after the object are errors. Nesting is bounded by the form itself.
func ParseJSON(b []byte) (*Operation, error) {
	if !utf8.Valid(b) {
		return nil, fail(RuleFormat, "not UTF-8")
	}
	p := jsonParser{b: b}
	f := fields{seen: map[string]bool{}, texts: map[string]string{}}
	p.object(func(key string) {
		if f.seen[key] {
			p.fail("field repeated")
			return
		}
		f.seen[key] = true
		switch key {
		case "prev":
			if p.null() {
				f.prevIsNull = true
				return
			}
			f.texts[key] = p.str()
		case "alsoKnownAs":
			f.data.AlsoKnownAs = p.strings()
		case "rotationKeys":
			f.data.RotationKeys = p.strings()
		case "verificationMethods":
			f.data.VerificationMethods = map[string]string{}
			p.object(func(id string) {
				if _, dup := f.data.VerificationMethods[id]; dup {
					p.fail("field repeated")
				}
				f.data.VerificationMethods[id] = p.str()
			})
		case "services":
			f.data.Services = map[string]Service{}
			p.object(func(id string) {
				if _, dup := f.data.Services[id]; dup {
					p.fail("field repeated")
				}
				m := map[string]string{}
				p.object(func(k string) {
					if _, dup := m[k]; dup {
						p.fail("field repeated")
					}
					m[k] = p.str()
				})
				s, ok := service(m)
				if !ok {
					p.fail("a service must have type and endpoint, nothing else")
				}
				f.data.Services[id] = s
			})
		default:
			f.texts[key] = p.str()
		}
	})
	p.space()
	if p.err == "" && p.i < len(p.b) {
		p.fail("something follows")
	}
	if p.err != "" {
		return nil, fail(RuleFormat, "JSON at byte %d: %s", p.i, p.err)
	}
	return f.operation()
}

func service(m map[string]string) (Service, bool) {
	typ, ok1 := m["type"]
	endpoint, ok2 := m["endpoint"]
	return Service{Type: typ, Endpoint: endpoint}, ok1 && ok2 && len(m) == 2
}

var shapes = map[Type][]string{
	TypeOperation: {"type", "sig", "prev", "services", "alsoKnownAs", "rotationKeys", "verificationMethods"},
	TypeTombstone: {"type", "sig", "prev"},
	TypeCreate:    {"type", "sig", "prev", "handle", "service", "signingKey", "recoveryKey"},
}

func (f *fields) operation() (*Operation, error) {
	o := &Operation{Type: Type(f.texts["type"]), Sig: f.texts["sig"]}
	shape, ok := shapes[o.Type]
	if !ok {
		return nil, fail(RuleFormat, "type must be plc_operation, plc_tombstone or create")
	}
	for _, name := range shape {
		if !f.seen[name] {
			return nil, fail(RuleFormat, "field %q is missing", name)
		}
	}
	if len(f.seen) != len(shape) {
		return nil, fail(RuleFormat, "has fields that a %s must not have", o.Type)
	}
	if !f.prevIsNull {
		c, err := cid.Parse(f.texts["prev"])
		if err != nil || c.Codec() != cid.DagCBOR {
			return nil, fail(RuleFormat, "prev is not the CID of an operation")
		}
		o.Prev = c
	}
	switch {
	case o.Type == TypeTombstone && f.prevIsNull:
		return nil, fail(RuleFormat, "prev of a tombstone is null")
	case o.Type == TypeCreate:
		if !f.prevIsNull {
			return nil, fail(RuleFormat, "prev of an operation of the old form is not null")
		}
		o.Legacy = &LegacyCreate{
			SigningKey: f.texts["signingKey"], RecoveryKey: f.texts["recoveryKey"], Handle: f.texts["handle"], Service: f.texts["service"],
		}
	case o.Type == TypeOperation:
		o.Data = f.data
	}
	return o, nil
}

// ParseCBOR reads the CBOR form of a signed operation, as strictly as [ParseJSON].
func ParseCBOR(b []byte) (*Operation, error) {
	r := cbor.NewReader(b)
	f := fields{seen: map[string]bool{}, texts: map[string]string{}}
	err := readMap(&r, func(key string) (err error) {
		f.seen[key] = true
		switch key {
		case "prev":
			if r.IsNull() {
				f.prevIsNull = true
				return r.Null()
			}
			f.texts[key], err = r.Text()
		case "alsoKnownAs":
			f.data.AlsoKnownAs, err = readTexts(&r)
		case "rotationKeys":
			f.data.RotationKeys, err = readTexts(&r)
		case "verificationMethods":
			f.data.VerificationMethods = map[string]string{}
			err = readMap(&r, func(id string) (err error) {
				f.data.VerificationMethods[id], err = r.Text()
				return err
			})
		case "services":
			f.data.Services = map[string]Service{}
			err = readMap(&r, func(id string) error {
				m := map[string]string{}
				if err := readMap(&r, func(k string) (err error) { m[k], err = r.Text(); return err }); err != nil {
					return err
				}
				s, ok := service(m)
				if !ok {
					return fail(RuleFormat, "a service must have type and endpoint, nothing else")
				}
				f.data.Services[id] = s
				return nil
			})
		default:
			f.texts[key], err = r.Text()
		}
		return err
	})
	if err == nil {
		err = r.End()
	}
	if err != nil {
		return nil, fail(RuleFormat, "CBOR: %v", err)
	}
	return f.operation()
}

func readMap(r *cbor.Reader, value func(key string) error) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	var prev []byte
	for range n {
		key, err := r.MapKey(prev)
		if err != nil {
			return err
		}
		if err := value(string(key)); err != nil {
			return err
		}
		prev = key
	}
	return nil
}

func readTexts(r *cbor.Reader) ([]string, error) {
	n, err := r.Array()
	if err != nil {
		return nil, err
	}
	out := []string{}
	for range n {
		s, err := r.Text()
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// jsonParser reads the few shapes that occur in operations. After the first error it consumes nothing more.
type jsonParser struct {
	b   []byte
	i   int
	err string
}

func (p *jsonParser) fail(msg string) {
	if p.err == "" {
		p.err = msg
	}
}

func (p *jsonParser) space() {
	for p.i < len(p.b) && (p.b[p.i] == ' ' || p.b[p.i] == '\t' || p.b[p.i] == '\n' || p.b[p.i] == '\r') {
		p.i++
	}
}

// take consumes c after space, if it is next.
func (p *jsonParser) take(c byte) bool {
	p.space()
	if p.err == "" && p.i < len(p.b) && p.b[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *jsonParser) null() bool {
	p.space()
	if p.err == "" && len(p.b)-p.i >= 4 && string(p.b[p.i:p.i+4]) == "null" {
		p.i += 4
		return true
	}
	return false
}

// object reads an object whose values the callback reads.
func (p *jsonParser) object(value func(key string)) {
	if !p.take('{') {
		p.fail("an object is wanted")
		return
	}
	if p.take('}') {
		return
	}
	for p.err == "" {
		key := p.str()
		if !p.take(':') {
			p.fail("a colon is wanted")
			return
		}
		value(key)
		if p.take('}') {
			return
		}
		if !p.take(',') {
			p.fail("a comma or the end of the object is wanted")
		}
	}
}

func (p *jsonParser) strings() []string {
	out := []string{}
	if !p.take('[') {
		p.fail("an array is wanted")
		return out
	}
	if p.take(']') {
		return out
	}
	for p.err == "" {
		out = append(out, p.str())
		if p.take(']') {
			return out
		}
		if !p.take(',') {
			p.fail("a comma or the end of the array is wanted")
		}
	}
	return out
}

func (p *jsonParser) str() string {
	if !p.take('"') {
		p.fail("a string is wanted")
		return ""
	}
	var out []byte
	start := p.i
	for p.i < len(p.b) {
		switch c := p.b[p.i]; {
		case c == '"':
			s := append(out, p.b[start:p.i]...)
			p.i++
			return string(s)
		case c < ' ':
			p.fail("control character in a string")
			return ""
		case c != '\\':
			p.i++
		default:
			out = append(out, p.b[start:p.i]...)
			p.i++
			out = p.escape(out)
			if p.err != "" {
				return ""
			}
			start = p.i
		}
	}
	p.fail("string does not end")
	return ""
}

func (p *jsonParser) escape(out []byte) []byte {
	if p.i == len(p.b) {
		p.fail("string does not end")
		return out
	}
	c := p.b[p.i]
	p.i++
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		r := p.hex4()
		if utf16.IsSurrogate(r) {
			if r >= 0xdc00 || len(p.b)-p.i < 6 || p.b[p.i] != '\\' || p.b[p.i+1] != 'u' {
				p.fail("lone surrogate")
				return out
			}
			p.i += 2
			if r = utf16.DecodeRune(r, p.hex4()); r == utf8.RuneError {
				p.fail("lone surrogate")
			}
		}
		return utf8.AppendRune(out, r)
	}
	p.fail("unknown escape")
	return out
}

func (p *jsonParser) hex4() rune {
	var r rune
	for range 4 {
		if p.i == len(p.b) {
			p.fail("string does not end")
			return 0
		}
		c := p.b[p.i]
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			p.fail("bad \\u escape")
			return 0
		}
		p.i++
	}
	return r
}
