package httpd_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/barograph/baro/internal/httpd"
)

func TestClientAddr(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		remote    string
		forwarded []string
		want, key string
	}{
		{"1.2.3.4:5", []string{"9.9.9.9"}, "1.2.3.4", "1.2.3.4"},
		{"10.0.0.1:5", []string{"6.6.6.6", "9.9.9.9, 10.2.2.2"}, "9.9.9.9", "9.9.9.9"}, // what is left of the last stranger is his own word
		{"10.0.0.1:5", []string{"10.2.2.2"}, "10.2.2.2", "10.2.2.2"},
		{"10.0.0.1:5", []string{"nonsense"}, "10.0.0.1", "10.0.0.1"},
		{"[fe80::1%eth0]:5", nil, "fe80::1", "fe80::/64"},
		{"10.0.0.1", nil, "10.0.0.1", "10.0.0.1"}, // without a port
		{"@", nil, "invalid IP", "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		a := httpd.ClientAddr(r, trusted)
		if a.String() != c.want || httpd.ClientKey(a) != c.key {
			t.Errorf("%v: address %v, key %v", c, a, httpd.ClientKey(a))
		}
	}
}
