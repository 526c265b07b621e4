package dns

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestResolvconf(t *testing.T) {
	got := string(Resolvconf("default", "cluster.local.", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")))
	want := `search default.svc.cluster.local svc.cluster.local cluster.local
nameserver 127.0.0.1
nameserver ::1
options ndots:5
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// miekg/dns reads it and walks the search path as libc does.
	c, err := dns.ClientConfigFromReader(strings.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Config{}, shop()...)
	for name, want := range map[string]string{
		"api": "NOERROR aa 100.96.0.1", "api.default": "NOERROR aa 100.96.0.1", "api.default.svc": "NOERROR aa 100.96.0.1",
		"only4": "NOERROR aa 100.96.0.2", "db-0.db": "NOERROR aa 10.68.0.3",
	} {
		for _, full := range c.NameList(name) {
			m := exchange(t, s, ask(t, full, dns.TypeA), true)
			if m.Rcode == dns.RcodeNameError {
				continue
			}
			if got := show(m); got != want {
				t.Errorf("%s as %s: %s, want %s", name, full, got, want)
			}
			break
		}
	}
}

func TestParseResolvconf(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"usual", "# x\nsearch a b\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # y\noptions ndots:5\n", "192.0.2.1:53 [2001:db8::1]:53"},
		{"zone and no newline", "nameserver fe80::1%eth0", "[fe80::1%eth0]:53"},
		{"twice", "nameserver 192.0.2.1\nnameserver ::ffff:192.0.2.1\n", "192.0.2.1:53"},
		{"too many", strings.Repeat("nameserver 10.0.0.1\n", 3) + "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n" +
			"nameserver 1.1.1.5\nnameserver 1.1.1.6\nnameserver 1.1.1.7\nnameserver 1.1.1.8\n",
			"10.0.0.1:53 1.1.1.1:53 1.1.1.2:53 1.1.1.3:53 1.1.1.4:53 1.1.1.5:53 1.1.1.6:53 1.1.1.7:53"},
		{"none", "nameserver\n", ""},
		{"bad", "\nnameserver example.com\n", `error: line 2: nameserver "example.com" is not an IP address`},
		{"huge", strings.Repeat("#", maxResolvconf+1), "error: larger than 65536 bytes"},
	} {
		list, err := ParseResolvconf(strings.NewReader(c.text))
		var words []string
		for _, a := range list {
			words = append(words, a.String())
		}
		got := strings.Join(words, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestUpstreamsNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if _, err := Upstreams(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Upstreams(path)
	if err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}

func FuzzResolvconf(f *testing.F) {
	f.Add([]byte("search x\nnameserver 192.0.2.1\nnameserver fe80::1%lo\n"))
	f.Add([]byte("nameserver \x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ParseResolvconf(bytes.NewReader(text))
		if err != nil {
			return
		}
		if len(list) > maxUpstreams {
			t.Fatalf("%d upstreams", len(list))
		}
		for _, a := range list {
			if !a.IsValid() || a.Port() != 53 {
				t.Fatalf("upstream %v", a)
			}
		}
	})
}
