package syntax

import (
	"strings"
	"time"
)

// Datetime is a timestamp with a zone, such as "1985-04-12T23:20:50.123Z". The spelling is kept, because a record that is
// re-encoded must keep its bytes.
type Datetime string

// ParseDatetime reads a datetime: the intersection of RFC 3339 and ISO 8601, with a day that exists and a year of 0 to
// 9999 after conversion to UTC.
func ParseDatetime(s string) (Datetime, error) {
	return parse[Datetime](KindDatetime, s, checkDatetime(s))
}

// ValidDatetime reports whether s is a datetime.
func ValidDatetime[S ~string | ~[]byte](s S) bool { return checkDatetime(s) == "" }

// NewDatetime formats t in UTC with milliseconds, the preferred form.
func NewDatetime(t time.Time) Datetime {
	return Datetime(t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// Time returns the moment, in UTC, with nanoseconds; further digits are cut. The zero time if d is not a datetime.
func (d Datetime) Time() time.Time {
	f, reason := scanDatetime(d)
	if reason != "" {
		return time.Time{}
	}
	return f.time()
}

type fields struct {
	year, month, day, hour, minute, second, nano int
	offset                                       int // minutes east of UTC
}

func (f *fields) time() time.Time {
	return time.Date(f.year, time.Month(f.month), f.day, f.hour, f.minute-f.offset, f.second, f.nano, time.UTC)
}

func checkDatetime[S text](s S) string {
	_, reason := scanDatetime(s)
	return reason
}

// digits2 reads two digits; a result over 99 means that one is not a digit.
func digits2[S text](s S, i int) int {
	a, b := s[i]-'0', s[i+1]-'0'
	if a > 9 || b > 9 {
		return 1000
	}
	return int(a)*10 + int(b)
}

func scanDatetime[S text](s S) (f fields, reason string) {
	const form = "form must be YYYY-MM-DDThh:mm:ss, an optional fraction, and Z or an offset"
	n := len(s)
	if n > MaxDatetime {
		return f, "longer than 64 bytes"
	}
	if n < len("YYYY-MM-DDThh:mm:ssZ") ||
		s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return f, form
	}
	hi, lo := digits2(s, 0), digits2(s, 2)
	f.month, f.day = digits2(s, 5), digits2(s, 8)
	f.hour, f.minute, f.second = digits2(s, 11), digits2(s, 14), digits2(s, 17)
	if hi > 99 || lo > 99 || f.month > 99 || f.day > 99 || f.hour > 99 || f.minute > 99 || f.second > 99 {
		return f, form
	}
	f.year = hi*100 + lo
	i := 19
	if s[i] == '.' {
		i++
		start, scale := i, 100_000_000
		for ; i < n && class[s[i]]&cDigit != 0; i++ {
			f.nano += int(s[i]-'0') * scale
			scale /= 10
		}
		if i == start {
			return f, "fraction without digits"
		}
	}
	switch {
	case i == n:
		return f, "time zone is missing"
	case s[i] == 'Z' && i+1 == n:
	case (s[i] == '+' || s[i] == '-') && i+6 == n && s[i+3] == ':':
		oh, om := digits2(s, i+1), digits2(s, i+4)
		if oh > 99 || om > 99 {
			return f, form
		}
		if oh > 23 || om > 59 {
			return f, "offset out of range"
		}
		f.offset = oh*60 + om
		if s[i] == '-' {
			if f.offset == 0 {
				return f, "offset -00:00 is not allowed"
			}
			f.offset = -f.offset
		}
	default:
		return f, form
	}
	switch {
	case f.month < 1 || f.month > 12:
		return f, "month out of range"
	case f.day < 1 || f.day > daysIn(f.year, f.month):
		return f, "day out of range"
	case f.hour > 23 || f.minute > 59 || f.second > 59:
		return f, "time of day out of range"
	}
	// Only the first and last day of the range can leave it by conversion to UTC.
	if f.offset != 0 && (f.year == 0 || f.year == 9999) {
		if y := f.time().Year(); y < 0 || y > 9999 {
			return f, "year out of range in UTC"
		}
	}
	return f, ""
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// LenientTime makes the best of a datetime that breaks the rules in a common way: no zone (taken as UTC), an offset
// without colon, -00:00, lower-case letters, a space for the T. It gives a time for sorting and display only: never write
// it back into a record.
func LenientTime(s string) (time.Time, bool) {
	t := strings.ToUpper(strings.TrimSpace(s))
	if len(t) > MaxDatetime || len(t) < len("YYYY-MM-DDThh:mm:ss") {
		return time.Time{}, false
	}
	if t[10] == ' ' || t[10] == '_' {
		t = t[:10] + "T" + t[11:]
	}
	if d := Datetime(t); ValidDatetime(d) {
		return d.Time(), true
	}
	n := len(t)
	switch {
	case strings.HasSuffix(t, "-00:00"), strings.HasSuffix(t, "-0000"):
		t = t[:strings.LastIndexByte(t, '-')] + "Z"
	case n >= 24 && (t[n-5] == '+' || t[n-5] == '-'):
		t = t[:n-2] + ":" + t[n-2:]
	case t[n-1] != 'Z':
		t += "Z"
	}
	if d := Datetime(t); ValidDatetime(d) {
		return d.Time(), true
	}
	return time.Time{}, false
}
