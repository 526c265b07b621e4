package dns

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

const (
	maxResolvconf = 64 << 10
	maxUpstreams  = 8 // glibc looks at 3
)

// Resolvconf renders the resolv.conf of a workload, as Kubernetes makes it:
// ndots:5 sends every name with fewer dots through the search path first.
func Resolvconf(namespace, domain string, servers ...netip.Addr) []byte {
	domain = strings.Trim(domain, ".")
	var b bytes.Buffer
	fmt.Fprintf(&b, "search %s.svc.%s svc.%s %s\n", namespace, domain, domain, domain)
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	b.WriteString("options ndots:5\n")
	return b.Bytes()
}

// Upstreams reads the name servers of the resolv.conf at path.
func Upstreams(path string) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read upstream resolvers: %w", err)
	}
	defer f.Close()
	list, err := ParseResolvconf(f)
	if err != nil {
		return nil, fmt.Errorf("read upstream resolvers of %s: %w", path, err)
	}
	return list, nil
}

// ParseResolvconf returns the addresses of nameserver lines, port 53, in order
// and each once, at most 8. Like resolv.conf(5) it passes over what it does not
// know; a nameserver that is no address is an error with its line number.
func ParseResolvconf(r io.Reader) ([]netip.AddrPort, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxResolvconf+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxResolvconf {
		return nil, fmt.Errorf("larger than %d bytes", maxResolvconf)
	}
	var list []netip.AddrPort
	seen := make(map[netip.Addr]bool)
	line := 0
	for s := range strings.Lines(string(text)) {
		line++
		fields := strings.Fields(s)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: nameserver %q is not an IP address", line, fields[1])
		}
		if addr = addr.Unmap(); !seen[addr] && len(list) < maxUpstreams {
			seen[addr] = true
			list = append(list, netip.AddrPortFrom(addr, 53))
		}
	}
	return list, nil
}
