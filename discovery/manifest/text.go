package manifest

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// Rules for one string, by the name that a schema's `is` tag gives. A rule returns what
// is wrong and how to put it right, or "".
var textRules = map[string]func(string) string{
	"label1123":  pattern(label1123, 63, "use lower-case letters, digits and '-', at most 63, first and last no '-' (RFC 1123 label)"),
	"label1035":  pattern(label1035, 63, "use lower-case letters, digits and '-', at most 63, first a letter, last no '-' (RFC 1035 label)"),
	"subdomain":  pattern(subdomain, 253, "use lower-case letters, digits, '-' and '.', at most 253 (RFC 1123 subdomain)"),
	"hostname":   pattern(subdomain, 253, "give a precise host name in lower case, without port or wildcard"),
	"header":     pattern(token, 256, "a header's name has letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 token)"),
	"labelValue": pattern(labelValue, 63, "a label's value has letters, digits, '-', '_' and '.', at most 63, first and last a letter or digit"),
	"labelKey":   labelKeyRule,
	"duration":   durationRule,
	"regex":      regexRule,
	"identity":   identityRule,
	"address":    addressRule,
	"addrPort":   addrPortRule,
	"coreGroup":  coreGroupRule,
	"free":       func(string) string { return "" },
}

var (
	label1123  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	label1035  = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)
	subdomain  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	token      = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+\\-.^_|~\x60]+$")
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`)
	labelName  = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
)

func pattern(re *regexp.Regexp, limit int, fix string) func(string) string {
	return func(s string) string {
		if len(s) <= limit && re.MatchString(s) {
			return ""
		}
		return fmt.Sprintf("%s is not valid; %s", quote(s), fix)
	}
}

// labelKeyRule is Kubernetes' qualified name: an optional DNS prefix and a name.
func labelKeyRule(s string) string {
	name := s
	if prefix, rest, ok := strings.Cut(s, "/"); ok {
		if len(prefix) > 253 || !subdomain.MatchString(prefix) {
			return fmt.Sprintf("the prefix of %s is not valid; use a DNS name in lower case before the '/'", quote(s))
		}
		name = rest
	}
	if len(name) > 63 || !labelName.MatchString(name) {
		return fmt.Sprintf("%s is not a valid key; use letters, digits, '-', '_' and '.', at most 63, first and last a letter or digit", quote(s))
	}
	return ""
}

func coreGroupRule(s string) string {
	if s != "" {
		return fmt.Sprintf("%s is not the group of Service; write \"\"", quote(s))
	}
	return ""
}

func durationRule(s string) string {
	if _, err := parseDuration(s); err != nil {
		return err.Error()
	}
	return ""
}

func regexRule(s string) string {
	if _, err := regexp.Compile(s); err != nil {
		return fmt.Sprintf("%s does not compile: %v; write it in RE2 syntax", quote(s), err)
	}
	return ""
}

func identityRule(s string) string {
	if _, err := spiffeid.Parse(s); err != nil {
		return fmt.Sprintf("%v; write spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE", err)
	}
	return ""
}

func addressRule(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
		return fmt.Sprintf("%s is not an address of one host; give an IPv4 or IPv6 address without a zone", quote(s))
	}
	return ""
}

func addrPortRule(s string) string {
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
		return fmt.Sprintf("%s is not an address with a port; write 127.0.0.1:9001 or [::1]:9001", quote(s))
	}
	return ""
}

// unprintable finds a character that has no place in a string: control characters, and
// what YAML does not print (YAML 1.2, production c-printable).
func unprintable(s string, multiline bool) (rune, bool) {
	for _, r := range s {
		switch {
		case multiline && (r == '\n' || r == '\t'):
		case r < 0x20, r >= 0x7f && r < 0xa0, r == 0xfeff, r == 0xfffe, r == 0xffff,
			r == 0x2028, r == 0x2029:
			return r, true
		}
	}
	return 0, false
}

// quote shows a string of the input in a message, shortened and with escapes.
func quote(s string) string {
	const limit = 80
	if len(s) > limit {
		cut := limit
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return fmt.Sprintf("%q (%d bytes)", s[:cut]+"...", len(s))
	}
	return fmt.Sprintf("%q", s)
}
