// Package namepb holds the message in which a service's DNS names travel from
// the control plane to the agents, and the checks on it. The control plane
// encodes it as an xDS resource; package dns builds its table from it.
package namepb

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"
)

// TypeURL is the xDS type of a Host resource.
const TypeURL = "type.googleapis.com/heddle.discovery.v1.Host"

// Limits on one Host. They bound what one resource can make an agent hold and
// are far above what a DNS answer can carry (64 KiB over TCP).
const (
	MaxBytes     = 1 << 20 // encoded size
	MaxAddresses = 16      // virtual IPs, and addresses of one endpoint
	MaxPorts     = 256
	MaxEndpoints = 4096
	MaxRecords   = 1 << 16 // endpoint addresses times ports, that is SRV records
)

// Decode parses and checks one Host; resource is the xDS resource's name and
// begins every error.
func Decode(resource string, wire []byte) (*Host, error) {
	if len(wire) > MaxBytes {
		return nil, fmt.Errorf("DNS host %q: %d bytes, limit is %d", resource, len(wire), MaxBytes)
	}
	h := new(Host)
	if err := proto.Unmarshal(wire, h); err != nil {
		return nil, fmt.Errorf("DNS host %q: %w", resource, err)
	}
	if err := Check(h); err != nil {
		return nil, fmt.Errorf("DNS host %q: %w", resource, err)
	}
	return h, nil
}

// Check reports the first thing wrong with h: the rules are those written at
// the fields in name.proto.
func Check(h *Host) error {
	if err := checkLabel(h.GetName()); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := checkLabel(h.GetNamespace()); err != nil {
		return fmt.Errorf("namespace: %w", err)
	}
	if err := checkKind(h); err != nil {
		return err
	}
	if err := checkAddresses(h.VirtualIps); err != nil {
		return fmt.Errorf("virtual_ips: %w", err)
	}
	if err := checkPorts(h.Ports); err != nil {
		return err
	}
	if len(h.Endpoints) > MaxEndpoints {
		return fmt.Errorf("endpoints: %d, limit is %d", len(h.Endpoints), MaxEndpoints)
	}
	addresses := 0
	for i, e := range h.Endpoints {
		if err := checkEndpoint(e); err != nil {
			return fmt.Errorf("endpoints[%d]: %w", i, err)
		}
		addresses += len(e.Addresses)
	}
	if records := addresses * max(1, len(h.Ports)); records > MaxRecords {
		return fmt.Errorf("endpoints: %d addresses and %d ports make %d records, limit is %d",
			addresses, len(h.Ports), records, MaxRecords)
	}
	return nil
}

func checkKind(h *Host) error {
	kinds := 0
	if len(h.VirtualIps) > 0 {
		kinds++
	}
	if h.Headless {
		kinds++
	}
	if h.ExternalName != "" {
		kinds++
		if err := checkName(h.ExternalName); err != nil {
			return fmt.Errorf("external_name: %w", err)
		}
	}
	if kinds != 1 {
		return errors.New("want exactly one of virtual_ips, headless, external_name")
	}
	if len(h.Endpoints) > 0 && !h.Headless {
		return errors.New("endpoints: only for a headless service")
	}
	return nil
}

func checkEndpoint(e *Endpoint) error {
	if e.GetHostname() != "" {
		if err := checkLabel(e.Hostname); err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
	}
	if len(e.GetAddresses()) == 0 {
		return errors.New("addresses: none")
	}
	if err := checkAddresses(e.Addresses); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	return checkPorts(e.Ports)
}

func checkAddresses(list [][]byte) error {
	if len(list) > MaxAddresses {
		return fmt.Errorf("%d, limit is %d", len(list), MaxAddresses)
	}
	for i, b := range list {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return fmt.Errorf("[%d]: %d bytes, want 4 or 16", i, len(b))
		}
		if addr.Is4In6() || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("[%d]: %s cannot be a service's address", i, addr)
		}
	}
	return nil
}

func checkPorts(list []*Port) error {
	if len(list) > MaxPorts {
		return fmt.Errorf("ports: %d, limit is %d", len(list), MaxPorts)
	}
	for i, p := range list {
		if p.GetNumber() < 1 || p.GetNumber() > 65535 {
			return fmt.Errorf("ports[%d]: number %d is not in 1 to 65535", i, p.GetNumber())
		}
		if _, known := Protocol_name[int32(p.Protocol)]; !known {
			return fmt.Errorf("ports[%d]: protocol %d is unknown", i, p.Protocol)
		}
		if p.Name == "" {
			continue
		}
		// "_" + name must fit a label of 63 (RFC 1035, 2.3.4).
		if err := checkLabel(p.Name); err != nil || len(p.Name) > 62 {
			return fmt.Errorf("ports[%d]: name %q is not a port name", i, p.Name)
		}
	}
	return nil
}

// checkLabel accepts a lower-case label of RFC 1123, as Kubernetes does.
func checkLabel(s string) error {
	if len(s) < 1 || len(s) > 63 {
		return fmt.Errorf("%d characters, want 1 to 63", len(s))
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' || i == 0 || i == len(s)-1) {
			return fmt.Errorf("%q is not a DNS label: lower-case letters, digits and inner hyphens", s)
		}
	}
	return nil
}

// checkName accepts a host name of RFC 1123, with or without the final dot;
// underscores are let through because real CNAME targets have them.
func checkName(s string) error {
	s = strings.TrimSuffix(s, ".")
	if len(s) < 1 || len(s) > 253 {
		return fmt.Errorf("%d characters, want 1 to 253", len(s))
	}
	for label := range strings.SplitSeq(strings.ToLower(s), ".") {
		if err := checkLabel(strings.ReplaceAll(label, "_", "a")); err != nil {
			return fmt.Errorf("%q is not a host name", s)
		}
	}
	return nil
}
