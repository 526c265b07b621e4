package state

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

func svc(name string) *mesh.Service { return &mesh.Service{Meta: mesh.Meta{Ref: service(name)}} }

func TestVirtualIPs(t *testing.T) {
	dir := t.TempDir()
	config := Config{netip.MustParsePrefix("100.96.0.0/29"), netip.MustParsePrefix("fd00::/64")}
	db, err := Open(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	db.now = func() time.Time { return now }
	given, seen := make(map[string][]netip.Addr), make(map[netip.Addr]bool)
	for i := range 6 { // all of a /29 but the first and the last
		s := svc(fmt.Sprint("s", i))
		if err := db.AssignVirtualIPs(s); err != nil {
			t.Fatal(err)
		}
		for j, a := range s.VirtualIPs {
			if p := []netip.Prefix{config.VirtualV4, config.VirtualV6}[j]; seen[a] || !p.Contains(a) || a == p.Addr() {
				t.Fatalf("%s has %v", s.Ref, s.VirtualIPs)
			}
			seen[a] = true
		}
		given[s.Name.Name] = s.VirtualIPs
	}
	if err := db.AssignVirtualIPs(svc("late")); err == nil || !strings.Contains(err.Error(), "100.96.0.0/29") {
		t.Fatalf("a full prefix: %v", err)
	}
	if err := db.ReleaseVirtualIPs(service("s3").Name, service("s4").Name); err != nil {
		t.Fatal(err)
	}
	if err := db.AssignVirtualIPs(svc("late")); err == nil {
		t.Fatal("an address went to another at once")
	}
	s3 := svc("s3")
	if err := db.AssignVirtualIPs(s3); err != nil || s3.VirtualIPs[0] != given["s3"][0] {
		t.Fatalf("s3 came back with %v, %v", s3.VirtualIPs, err)
	}
	now = now.Add(keepAddress)
	late := svc("late")
	if err := db.AssignVirtualIPs(late); err != nil || late.VirtualIPs[0] != given["s4"][0] {
		t.Fatalf("late has %v, %v; want that of s4, %v", late.VirtualIPs, err, given["s4"])
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(dir, config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, name := range []string{"s0", "s3", "late"} {
		again := svc(name)
		want := given[name]
		if name == "late" {
			want = late.VirtualIPs
		}
		if err := db.AssignVirtualIPs(again); err != nil || again.VirtualIPs[0] != want[0] || again.VirtualIPs[1] != want[1] {
			t.Errorf("%s after a restart: %v, %v; want %v", name, again.VirtualIPs, err, want)
		}
	}
	if err := db.AssignVirtualIPs(svc("s4")); err == nil {
		t.Error("s4 got an address of a full prefix")
	}
	headless := svc("headless")
	headless.Headless = true
	if err := db.AssignVirtualIPs(headless); err != nil || headless.VirtualIPs != nil {
		t.Errorf("headless: %v, %v", headless.VirtualIPs, err)
	}
}
