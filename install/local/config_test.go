package local

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const valid = `
name: mine
services:
  db: {ports: [5432], command: [db]}
  api:
    ports: [9000]
    zones: [a, b]
    after: [db]
    uses: ["db:5432"]
    command: [api, "${PORT_9000}"]
  web:
    after: [api]
    replicas: 3
    zones: [a, b]
    publish: ["127.0.0.1:8088:8080"]
    command: [web]
`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.workloads() {
		got = append(got, fmt.Sprintf("%s zone=%q first=%v service=%s", w.Name, w.Zone, w.First, w.Service.Service))
	}
	want := []string{
		`api-0 zone="a" first=true service=api`, `api-1 zone="b" first=false service=api`,
		`db-0 zone="" first=true service=db`,
		`web-0 zone="a" first=true service=web`, `web-1 zone="b" first=false service=web`, `web-2 zone="a" first=false service=web`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("workloads:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if c.level("web") != 2 || c.level("db") != 0 || c.depth() != 2 {
		t.Errorf("levels: web %d, db %d, depth %d; want 2, 0, 2", c.level("web"), c.level("db"), c.depth())
	}
	s := &supervisor{Options: Options{Config: c}, workloads: c.workloads()}
	var order []string
	for _, w := range s.inOrder() {
		order = append(order, w.Entry)
	}
	if order := slices.Compact(order); !slices.Equal(order, []string{"db", "api", "web"}) {
		t.Errorf("order %v: want what others wait for first", order)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"unknown field", "name: a\nservises: {}\n", `line 2: unknown field "servises"; did you mean services?`},
		{"unknown field of a service", "name: a\nservices:\n  b:\n    comand: [x]\n", `line 4: unknown field "comand"; did you mean command?`},
		{"field of another level", "name: a\nreplicas: 3\n", `line 2: unknown field "replicas"; known here: apply, jaeger, metrics, name,`},
		{"name", "name: Shop_1\nservices: {a: {command: [x]}}", `name: "Shop_1" is not a name`},
		{"no services", "name: a", "services: there are none"},
		{"no command", "name: a\nservices: {b: {ports: [80]}}", "services.b.command: is empty"},
		{"replicas", "name: a\nservices: {b: {command: [x], replicas: 1000}}", "services.b.replicas: 1000"},
		{"after nobody", "name: a\nservices: {b: {command: [x], after: [c]}}", `services.b.after: there is no service "c"`},
		{"after itself", "name: a\nservices: {b: {command: [x], after: [c]}, c: {command: [x], after: [b]}}", "waits for itself"},
		{"uses", "name: a\nservices: {b: {command: [x], uses: [api]}}", `"api": want SERVICE:PORT`},
		{"publish", "name: a\nservices: {b: {command: [x], publish: ['8080:80']}}", "want ADDRESS:PORT:PORT"},
		{"published twice", "name: a\nservices: {b: {command: [x], publish: ['127.0.0.1:1:2']}, c: {command: [x], publish: ['127.0.0.1:1:2']}}", "is published by b already"},
		{"metrics", "name: a\nmetrics: '15020'\nservices: {b: {command: [x]}}", `metrics: "15020": want ADDRESS:PORT`},
		{"metrics published", "name: a\nmetrics: 127.0.0.1:1\nservices: {b: {command: [x], publish: ['127.0.0.1:1:2']}}", "is published by metrics already"},
		{"port", "name: a\nservices: {b: {command: [x], ports: [70000]}}", "cannot unmarshal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte("name: a\nservices: {b: {command: [x], after: [b]}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			return
		}
		if c.Workloads() == 0 || c.depth() >= len(c.Services) {
			t.Errorf("%d workloads, depth %d of %d services", c.Workloads(), c.depth(), len(c.Services))
		}
	})
}

func TestExpand(t *testing.T) {
	names := map[string]string{"PORT_80": "8080", "db:5432": "127.0.0.1:9"}
	if got, err := expand("x://${db:5432}/${PORT_80}", names); got != "x://127.0.0.1:9/8080" || err != nil {
		t.Errorf("expand: %q, %v", got, err)
	}
	if _, err := expand("${NOPE}", names); err == nil || !strings.Contains(err.Error(), "there are PORT_80, db:5432") {
		t.Errorf("expand of an unknown name: %v", err)
	}
}

// TestInUse names the process that has a port: this one.
func TestInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = net.Listen("tcp", l.Addr().String())
	if err == nil {
		t.Fatal("a port was opened twice")
	}
	message := endpoint{l.Addr().String(), ", or mend this"}.inUse(err).Error()
	for _, want := range []string{l.Addr().String(), fmt.Sprintf("(pid %d)", os.Getpid()), "stop it, or mend this"} {
		if !strings.Contains(message, want) {
			t.Errorf("message %q is without %q", message, want)
		}
	}
}

// TestListening knows which of several sockets with the same port is in the way.
func TestListening(t *testing.T) {
	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	port := one.Addr().(*net.TCPAddr).AddrPort().Port()
	two, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	for _, tc := range []struct {
		address string
		want    int
	}{{"127.0.0.1", 1}, {"127.0.0.2", 1}, {"127.0.0.3", 0}, {"0.0.0.0", 2}} {
		want := netip.AddrPortFrom(netip.MustParseAddr(tc.address), port)
		got := listening("/proc/net/tcp", want)
		if len(got) != tc.want || len(got) > 0 && got[0].uid != strconv.Itoa(os.Geteuid()) {
			t.Errorf("in the way of %s: %v, want %d of ours", want, got, tc.want)
		}
	}
	for text, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000000000000000000001000000:0050": "[::1]:80",
		"0000000000000000FFFF00000100007F:0050": "127.0.0.1:80",
	} {
		if got, err := parseLocal(text); err != nil || got.String() != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestProjectNames(t *testing.T) {
	home := t.TempDir()
	if _, err := OpenProject(home, "../x"); err == nil {
		t.Error("a project may be called ../x")
	}
	p, err := OpenProject(home, "mine")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Make(); err != nil {
		t.Fatal(err)
	}
	if p.Running() {
		t.Error("a project runs that nobody started")
	}
	if out, err := PS(t.Context(), p); err != nil || out.Items == nil || len(out.Items) != 0 {
		t.Errorf("ps of what does not run: %v, %v; want an empty list", out, err)
	}
	if err := Down(t.Context(), p); err != nil {
		t.Errorf("down of what does not run: %v", err)
	}
}
