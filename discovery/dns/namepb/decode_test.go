package namepb

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

func good() *Host {
	return &Host{Name: "api", Namespace: "default", VirtualIps: [][]byte{{100, 96, 0, 1}, make16(1)}, Ports: []*Port{{Name: "http", Number: 80}}}
}

func headless() *Host {
	return &Host{Name: "db", Namespace: "default", Headless: true,
		Endpoints: []*Endpoint{{Hostname: "db-0", Addresses: [][]byte{{10, 68, 0, 1}}, Ready: true}}}
}

func make16(last byte) []byte { return append([]byte{0xfd, 14: 0}, last) }

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name   string
		base   func() *Host
		change func(*Host)
		want   string // part of the error; empty for none
	}{
		{"ordinary", good, func(*Host) {}, ""},
		{"headless", headless, func(*Host) {}, ""},
		{"external", good, func(h *Host) { h.VirtualIps, h.ExternalName = nil, "_x.Example.com." }, ""},
		{"no name", good, func(h *Host) { h.Name = "" }, "name: 0 characters"},
		{"dots", good, func(h *Host) { h.Name = "a.b" }, `name: "a.b" is not a DNS label`},
		{"capitals", good, func(h *Host) { h.Namespace = "Default" }, "namespace:"},
		{"control characters", good, func(h *Host) { h.Name = "a\x00b" }, "not a DNS label"},
		{"nothing to say", good, func(h *Host) { h.VirtualIps = nil }, "exactly one of"},
		{"two kinds", good, func(h *Host) { h.Headless = true }, "exactly one of"},
		{"short address", good, func(h *Host) { h.VirtualIps[0] = []byte{1, 2, 3} }, "virtual_ips: [0]: 3 bytes"},
		{"mapped address", good, func(h *Host) { h.VirtualIps[0] = append(make([]byte, 10), 255, 255, 1, 2, 3, 4) }, "cannot be"},
		{"unspecified", good, func(h *Host) { h.VirtualIps[0] = make([]byte, 4) }, "0.0.0.0 cannot be"},
		{"too many addresses", good, func(h *Host) { h.VirtualIps = make([][]byte, 17) }, "virtual_ips: 17, limit"},
		{"port 0", good, func(h *Host) { h.Ports[0].Number = 0 }, "ports[0]: number 0"},
		{"port 65536", good, func(h *Host) { h.Ports[0].Number = 65536 }, "ports[0]: number 65536"},
		{"port name", good, func(h *Host) { h.Ports[0].Name = "a b" }, "not a port name"},
		{"protocol", good, func(h *Host) { h.Ports[0].Protocol = 9 }, "protocol 9 is unknown"},
		{"external name", good, func(h *Host) { h.VirtualIps, h.ExternalName = nil, "a..b" }, "external_name:"},
		{"endpoints without headless", good, func(h *Host) { h.Endpoints = headless().Endpoints }, "only for a headless"},
		{"hostname", headless, func(h *Host) { h.Endpoints[0].Hostname = "-" }, "endpoints[0]: hostname"},
		{"endpoint without address", headless, func(h *Host) { h.Endpoints[0].Addresses = nil }, "endpoints[0]: addresses: none"},
		{"too many endpoints", headless, func(h *Host) {
			for range MaxEndpoints {
				h.Endpoints = append(h.Endpoints, h.Endpoints[0])
			}
		}, "endpoints: 4097, limit"},
		{"too many records", headless, func(h *Host) {
			for range 1000 {
				h.Endpoints = append(h.Endpoints, h.Endpoints[0])
			}
			for range 100 {
				h.Ports = append(h.Ports, &Port{Number: 1})
			}
		}, "make 100100 records"},
		{"too large", good, func(h *Host) { h.ExternalName = strings.Repeat("a", MaxBytes) }, "bytes, limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.base()
			c.change(h)
			wire, err := proto.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Decode("default/x", wire)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "default/x")):
				t.Errorf("error %v, want the resource and %q in it", err, c.want)
			}
		})
	}
	if _, err := Decode("default/x", []byte{0xff}); err == nil {
		t.Error("garbage was accepted")
	}
}

func FuzzDecode(f *testing.F) {
	for _, h := range []*Host{good(), headless(), {Name: "x", Namespace: "y", ExternalName: "z"}} {
		wire, err := proto.Marshal(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		h, err := Decode("r", wire)
		if err != nil {
			return
		}
		again, err := proto.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode("r", again); err != nil {
			t.Fatalf("accepted once, then: %v", err)
		}
	})
}
