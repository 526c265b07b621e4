package capture

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// leaser is a network for leases only: no bridge is needed.
func leaser(t *testing.T, dir, prefix string) *Network {
	t.Helper()
	cfg := DefaultNetworkConfig()
	cfg.PrefixV4, cfg.StateDir, cfg.Log = netip.MustParsePrefix(prefix), dir, testLog(t)
	if err := os.MkdirAll(filepath.Join(dir, "leases"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &Network{cfg: cfg, dir: dir, ipv6: true}
}

func TestAllocateAtOnce(t *testing.T) {
	dir := t.TempDir()
	const all = 13 // addresses of a /28 but for network, gateway, broadcast
	var wg sync.WaitGroup
	var mu sync.Mutex // guards got
	got := make(map[netip.Addr]*Lease)
	for i := range all {
		n := leaser(t, dir, "10.1.2.0/28")
		wg.Go(func() {
			l, err := n.Allocate(fmt.Sprintf("w%d", i))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[l.V4] = l
		})
	}
	wg.Wait()
	if len(got) != all {
		t.Fatalf("%d different addresses, want %d", len(got), all)
	}
	n := leaser(t, dir, "10.1.2.0/28")
	if _, err := n.Allocate("one-more"); err == nil {
		t.Error("an address beyond the last")
	}
	for addr, l := range got {
		if last := addr.As4()[3]; last < 2 || last > 14 {
			t.Errorf("address %s", addr)
		}
		if _, err := n.Allocate(l.Key); !errors.Is(err, ErrInUse) {
			t.Errorf("second lease of %s: %v", l.Key, err)
		}
	}
	for addr, l := range got { // stable, and reused when nothing else is left
		l.Close()
		again, err := n.Allocate(l.Key)
		if err != nil || again.V4 != addr {
			t.Fatalf("%s had %s and got %v, %v", l.Key, addr, again, err)
		}
		again.Close()
		other, err := n.Allocate("one-more")
		if err != nil {
			t.Fatal(err)
		}
		other.Close()
		break
	}
	for _, l := range got {
		l.Close()
	}
}

func TestLeaseOfDeadHolder(t *testing.T) {
	dir := t.TempDir()
	n := leaser(t, dir, "10.68.0.0/16")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "lease", dir, "db-0")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Allocate("db-0")
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("while it lives: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	l, err := n.Allocate("db-0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.V4.String() != strings.TrimSpace(addr) {
		t.Errorf("got %s, had %s", l.V4, addr)
	}
	if !l.V6.IsValid() || l.MAC()[0]&1 != 0 {
		t.Errorf("address %s, MAC %s", l.V6, l.MAC())
	}
}

func TestLeasesDoNotPileUp(t *testing.T) {
	dir := t.TempDir()
	n := leaser(t, dir, "10.68.0.0/16")
	for i := range maxIdleLeases + 10 {
		path := filepath.Join(dir, "leases", strconv.Itoa(2+i))
		if err := os.WriteFile(path, []byte(fmt.Sprintf("old%d\n1\n", i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := n.Allocate("new")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	files, err := os.ReadDir(filepath.Join(dir, "leases"))
	if err != nil || len(files) > maxIdleLeases+1 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestKeysAreChecked(t *testing.T) {
	n := leaser(t, t.TempDir(), "10.68.0.0/16")
	for _, key := range []string{"", "a b", "a\nb", "a\x00", strings.Repeat("a", 254), "é"} {
		if _, err := n.Allocate(key); err == nil {
			t.Errorf("%q was accepted", key)
		}
	}
}
