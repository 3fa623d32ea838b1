package netguard

import (
	"net/netip"
	"strings"
)

// CheckHost says why a host must not be asked for, or "" when its spelling says nothing against it. It refuses what only
// some resolvers understand: numbers in place of addresses, and the names of the machine itself.
func CheckHost(host string) string {
	if host == "" {
		return "the host is empty"
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return CheckAddr(a)
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return "the name means this machine"
	}
	if name == "" || len(name) > 253 {
		return "the host is not a name"
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != '-' && c != '.' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return "the host has a character that no name has"
		}
	}
	// "2130706433", "0x7f.1", "127.1": whatever ends in a number is an address to somebody, and none of them is a name.
	last := name[strings.LastIndexByte(name, '.')+1:]
	if allDigits(last) || isHex(last) {
		return "the host is a number in an unusual spelling"
	}
	return ""
}

func allDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func isHex(s string) bool {
	rest, ok := strings.CutPrefix(s, "0x")
	if !ok {
		return false
	}
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// blocked are the special-purpose ranges of the IANA registries that no public server lives in.
var blocked4 = prefixes(
	"0.0.0.0/8", "this network",
	"10.0.0.0/8", "private",
	"100.64.0.0/10", "shared address space",
	"127.0.0.0/8", "loopback",
	"169.254.0.0/16", "link-local",
	"172.16.0.0/12", "private",
	"192.0.0.0/24", "protocol assignments",
	"192.0.2.0/24", "documentation",
	"192.88.99.0/24", "6to4 relay",
	"192.168.0.0/16", "private",
	"198.18.0.0/15", "benchmarking",
	"198.51.100.0/24", "documentation",
	"203.0.113.0/24", "documentation",
	"224.0.0.0/4", "multicast",
	"240.0.0.0/4", "reserved",
)

// Of IPv6, only global unicast is public, and of that not what tunnels to an IPv4 address or is kept for documents.
var (
	global6  = netip.MustParsePrefix("2000::/3")
	blocked6 = prefixes(
		"2001::/23", "protocol assignments and tunnels",
		"2001:db8::/32", "documentation",
		"2002::/16", "6to4 tunnel",
		"3fff::/20", "documentation",
	)
	named6 = prefixes(
		"::1/128", "loopback",
		"::/128", "unspecified",
		"64:ff9b::/96", "translated IPv4",
		"64:ff9b:1::/48", "translated IPv4",
		"fc00::/7", "private",
		"fe80::/10", "link-local",
		"ff00::/8", "multicast",
	)
)

type namedPrefix struct {
	prefix netip.Prefix
	name   string
}

func prefixes(pairs ...string) []namedPrefix {
	var out []namedPrefix
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, namedPrefix{netip.MustParsePrefix(pairs[i]), pairs[i+1]})
	}
	return out
}

func find(list []namedPrefix, ip netip.Addr) string {
	for _, p := range list {
		if p.prefix.Contains(ip) {
			return p.name
		}
	}
	return ""
}

// CheckAddr says why an address must not be connected to, or "" when it is a public unicast address.
func CheckAddr(ip netip.Addr) string {
	if !ip.IsValid() {
		return "the address is not valid"
	}
	if ip.Zone() != "" {
		return "the address has a zone"
	}
	ip = ip.Unmap() // ::ffff:127.0.0.1 is 127.0.0.1
	if ip.Is4() {
		if name := find(blocked4, ip); name != "" {
			return "the address is not public (" + name + ")"
		}
		return ""
	}
	if !global6.Contains(ip) {
		name := find(named6, ip)
		if name == "" {
			name = "outside global unicast"
		}
		return "the address is not public (" + name + ")"
	}
	if name := find(blocked6, ip); name != "" {
		return "the address is not public (" + name + ")"
	}
	return ""
}
