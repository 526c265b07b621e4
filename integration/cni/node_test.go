package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"
)

const networkConfig = `{"cniVersion": "1.0.0", "name": "net", "plugins": [
  {"type": "bridge"}
]}
`

// testNode has folders of its own, with a network's configuration.
func testNode(t *testing.T) NodeConfig {
	t.Helper()
	c := NodeConfig{
		BinDir: t.TempDir(), ConfDir: t.TempDir(), HostConfDir: "/etc/cni/net.d", Program: filepath.Join(t.TempDir(), "heddle"),
		SkipNamespaces: []string{"kube-system"}, Server: "https://192.0.2.1:443", CA: []byte("none"),
		Token: func(context.Context) (string, time.Time, error) { return "t", time.Now().Add(time.Hour), nil },
		Log:   slog.New(slog.DiscardHandler),
	}
	write(t, c.Program, "the program")
	write(t, filepath.Join(c.ConfDir, "10-net.conflist"), networkConfig)
	write(t, filepath.Join(c.ConfDir, "20-other.conflist"), networkConfig)
	return c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// until waits for what a running Node does by itself.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestNode puts the plugin in place, has others change what it needs, and removes it.
func TestNode(t *testing.T) {
	c := testNode(t)
	list, program := filepath.Join(c.ConfDir, "10-net.conflist"), filepath.Join(c.BinDir, Name)
	write(t, filepath.Join(c.BinDir, strings.Replace(temporary, "*", "1", 1)), "half a program") // of one that was killed
	n := NewNode(c)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return n.Run(ctx) })
	until(t, "in place", n.InPlace)
	chained := read(t, list)
	if !strings.Contains(chained, `"type":"heddle-cni","kubeconfig":"/etc/cni/net.d/heddle-cni.kubeconfig"`) {
		t.Errorf("the configuration is %s", chained)
	}
	if read(t, filepath.Join(c.ConfDir, "20-other.conflist")) != networkConfig {
		t.Error("a configuration was changed that no runtime uses")
	}
	for path, mode := range map[string]os.FileMode{program: 0o755, filepath.Join(c.ConfDir, kubeconfigName): 0o600, list: 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", path, info, err, mode)
		}
	}
	kubeconfig, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.ConfDir, kubeconfigName))
	if err != nil || kubeconfig.Host != c.Server || kubeconfig.BearerToken != "t" || string(kubeconfig.CAData) != "none" {
		t.Errorf("the kubeconfig: %v, %v", kubeconfig, err)
	}

	write(t, list, strings.Replace(networkConfig, "bridge", "ptp", 1))
	until(t, "the new configuration is chained", func() bool {
		text := read(t, list)
		return strings.Contains(text, "ptp") && strings.Contains(text, Name)
	})
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	until(t, "the program is back", func() bool { _, err := os.Stat(program); return err == nil })
	write(t, program, "another") // in place, of one that does not know better
	until(t, "the program is ours", func() bool { return read(t, program) == "the program" })
	// A network is installed whose configuration goes before.
	write(t, filepath.Join(c.ConfDir, "05-new.conflist"), networkConfig)
	until(t, "the runtime's new choice is chained", func() bool {
		return strings.Contains(read(t, filepath.Join(c.ConfDir, "05-new.conflist")), Name)
	})

	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := n.Remove(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"05-new.conflist": networkConfig, "10-net.conflist": strings.Replace(networkConfig, "bridge", "ptp", 1), "20-other.conflist": networkConfig} {
		if got := read(t, filepath.Join(c.ConfDir, file)); got != want {
			t.Errorf("%s is %s", file, got)
		}
	}
	for _, dir := range []string{c.BinDir, c.ConfDir} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), "heddle") {
				t.Errorf("left behind: %s", e.Name())
			}
		}
	}
	if err := n.Remove(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// TestNodeCannot has nodes on which the plugin cannot be: nothing is said to be in place,
// and no configuration names a plugin that would not work.
func TestNodeCannot(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*NodeConfig)
		says  string
	}{
		"no network yet": {func(c *NodeConfig) { c.ConfDir = t.TempDir() }, "no configuration yet"},
		"a single plugin first": {func(c *NodeConfig) {
			write(t, filepath.Join(c.ConfDir, "00-single.conf"), `{"name": "n", "type": "flannel"}`)
		}, "single plugin"},
		"half a configuration": {func(c *NodeConfig) { write(t, filepath.Join(c.ConfDir, "00-half.conflist"), networkConfig[:40]) }, "unexpected EOF"},
		"a link": {func(c *NodeConfig) {
			if err := os.Symlink("10-net.conflist", filepath.Join(c.ConfDir, "00-link.conflist")); err != nil {
				t.Fatal(err)
			}
		}, "no regular file"},
		"no such file": {func(c *NodeConfig) { c.ConfFile = "gone.conflist" }, "gone.conflist"},
		"no token": {func(c *NodeConfig) {
			c.Token = func(context.Context) (string, time.Time, error) { return "", time.Time{}, errors.New("no token today") }
		}, "no token today"},
		"no program": {func(c *NodeConfig) { c.Program += "-gone" }, "the program to copy"},
	} {
		t.Run(name, func(t *testing.T) {
			config := testNode(t)
			c.spoil(&config)
			n := NewNode(config)
			n.keep(t.Context())
			if _, err := n.put(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) || n.InPlace() {
				t.Errorf("in place %v, error %v; want %q", n.InPlace(), err, c.says)
			}
			files, err := configFiles(config.ConfDir)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range files {
				if strings.Contains(read(t, path), Name) {
					t.Errorf("%s is chained", path)
				}
			}
		})
	}
}

// TestToken: a token is renewed at half of its life, kept while that fails, and not used
// when it has expired.
func TestToken(t *testing.T) {
	c := testNode(t)
	asked, life, fails := 0, time.Hour, error(nil)
	c.Token = func(context.Context) (string, time.Time, error) {
		asked++
		return fmt.Sprint("token-", asked), time.Now().Add(life), fails
	}
	n := NewNode(c)
	step := func(what, want string, in bool) {
		t.Helper()
		n.keep(t.Context())
		text := read(t, filepath.Join(c.ConfDir, kubeconfigName))
		if !strings.Contains(text, "token: "+want+"\n") || n.InPlace() != in {
			t.Errorf("%s: in place %v, kubeconfig %s; want %s", what, n.InPlace(), text, want)
		}
	}
	step("first", "token-1", true)
	step("young", "token-1", true)
	n.renew = time.Now().Add(-time.Second)
	fails = errors.New("away")
	step("half of its life, API server away", "token-1", true)
	fails = nil
	step("and back", "token-3", true)
	n.renew, n.expires, fails = time.Now().Add(-time.Second), time.Now().Add(-time.Second), errors.New("away")
	step("expired", "token-3", false)
}
