package parts

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// makeWheel writes a wheel of a part named demo into a directory that pip is
// told to look in instead of on the network, and returns the part.
func makeWheel(t *testing.T) (Part, string) {
	t.Helper()
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for _, f := range []struct{ name, content string }{
		{"demo/bin/demo", "#!/bin/sh\necho hello\n"},
		{"demo/unwanted/big", "never unpacked"},
		{"heddle_demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"heddle_demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: heddle-demo\nVersion: 1.0\n"},
		{"heddle_demo-1.0.dist-info/RECORD", ""},
	} {
		w, err := z.Create(f.name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, f.content)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	links := t.TempDir()
	const file = "heddle_demo-1.0-py3-none-any.whl"
	if err := os.WriteFile(filepath.Join(links, file), archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", links)
	sum := sha256.Sum256(archive.Bytes())
	return Part{
		name: "demo", version: "1.0", release: "1.0", project: "heddle-demo", programs: []string{"demo"}, drop: []string{"demo/unwanted/"},
		wheels: map[string]wheel{runtime.GOARCH: {
			file: file, sha256: hex.EncodeToString(sum[:]), implementation: "py", abi: "none", platform: "any", bin: "demo/bin",
		}},
	}, links
}

// with returns p with its wheel for this machine changed.
func with(p Part, change func(*wheel)) Part {
	w := p.wheels[runtime.GOARCH]
	change(&w)
	p.wheels = map[string]wheel{runtime.GOARCH: w}
	return p
}

func TestEnsureFetchesOnce(t *testing.T) {
	p, _ := makeWheel(t)
	c := cache{dir: filepath.Join(t.TempDir(), "parts")}
	dir, err := c.ensure(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(p.Program(dir, "demo")).CombinedOutput()
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("the program says %q, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "demo", "unwanted")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is to be dropped was unpacked: %v", err)
	}
	t.Setenv("PATH", t.TempDir()) // no pip from here on
	if again, err := c.ensure(t.Context(), p, nil); err != nil || again != dir {
		t.Errorf("second call: %q, %v; want %q", again, err, dir)
	}
	left, err := filepath.Glob(filepath.Join(c.dir, "*"))
	if err != nil || len(left) != 2 { // the part and its lock file
		t.Errorf("the cache holds %q", left)
	}
}

func TestEnsureByManyAtOnce(t *testing.T) {
	p, _ := makeWheel(t)
	c := cache{dir: filepath.Join(t.TempDir(), "parts")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := c.ensure(t.Context(), p, nil)
			if err != nil {
				t.Error(err)
			} else if _, ok := c.find(filepath.Base(dir)); !ok {
				t.Errorf("%s is not complete", dir)
			}
		})
	}
	wg.Wait()
}

func TestEnsureRepairs(t *testing.T) {
	p, _ := makeWheel(t)
	c := cache{dir: filepath.Join(t.TempDir(), "parts")}
	key := p.key(p.wheels[runtime.GOARCH])
	// What a process killed in the middle leaves behind.
	for _, dir := range []string{key + ".partial/demo", key + ".download/pip-1"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	torn := filepath.Join(c.dir, key+".download", p.wheels[runtime.GOARCH].file)
	if err := os.WriteFile(torn, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := c.ensure(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	// And a damaged program is noticed.
	if err := os.Truncate(p.Program(dir, "demo"), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ensure(t.Context(), p, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(p.Program(dir, "demo")); err != nil || info.Size() == 3 {
		t.Errorf("not repaired: %v, %v", info, err)
	}
}

func TestEnsureUsesWhatWasPutThereByHand(t *testing.T) {
	p, links := makeWheel(t)
	w := p.wheels[runtime.GOARCH]
	c := cache{dir: filepath.Join(t.TempDir(), "parts")}
	download := filepath.Join(c.dir, p.key(w)+".download")
	if err := os.MkdirAll(download, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(links, w.file), filepath.Join(download, w.file)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := c.ensure(t.Context(), p, nil); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureErrors(t *testing.T) {
	demo, _ := makeWheel(t)
	stub := func(script string) func(t *testing.T) {
		return func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "python3"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":/usr/bin:/bin")
		}
	}
	zeros := strings.Repeat("0", 64)
	for _, c := range []struct {
		name    string
		part    Part
		prepare func(t *testing.T)
		want    []string
	}{
		{"checksum", with(demo, func(w *wheel) { w.sha256 = zeros }), nil,
			[]string{"checksum of heddle_demo-1.0-py3-none-any.whl differs", "want sha256 " + zeros, "got " + demo.wheels[runtime.GOARCH].sha256}},
		{"no python", demo, func(t *testing.T) { t.Setenv("PATH", t.TempDir()) },
			[]string{"fetch demo 1.0", "apt-get install python3-pip"}},
		{"no pip", demo, stub("echo '/usr/bin/python3: No module named pip' >&2; exit 1"),
			[]string{"python3 has no pip", "apt-get install python3-pip"}},
		{"no network", demo, func(t *testing.T) {
			t.Setenv("PIP_NO_INDEX", "0")
			t.Setenv("PIP_FIND_LINKS", "")
			t.Setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
			t.Setenv("PIP_EXTRA_INDEX_URL", "")
		}, []string{"the package index cannot be reached", "put heddle_demo-1.0-py3-none-any.whl into "}},
		{"no such archive", func() Part { p := demo; p.version, p.release = "2.0", "2.0"; return p }(), nil,
			[]string{"fetch demo 2.0: pip: ", "No matching distribution found"}},
		{"other machine", func() Part { p := demo; p.wheels = nil; return p }(), nil,
			[]string{"there is no demo 1.0 for linux/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.prepare != nil {
				c.prepare(t)
			}
			_, err := cache{dir: t.TempDir()}.ensure(t.Context(), c.part, nil)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want %q in it", err, want)
				}
			}
			if sum := (*ChecksumError)(nil); c.name == "checksum" && !errors.As(err, &sum) {
				t.Errorf("%T is no ChecksumError", err)
			}
		})
	}
}

func TestEnsureStops(t *testing.T) {
	p, _ := makeWheel(t)
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	script := fmt.Sprintf("#!/bin/sh\necho x > %s\nsleep 1000 &\nwait\n", started)
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	c := cache{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.ensure(ctx, p, nil)
		done <- err
	}()
	for {
		if _, err := os.Stat(started); err == nil {
			break
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// TestRealIndex fetches the smallest part of the catalogue for real.
func TestRealIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("uses the network")
	}
	var said bytes.Buffer
	dir, err := cache{dir: t.TempDir()}.ensure(t.Context(), Nginx, &said)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(Nginx.Program(dir, "nginx"), "-v").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "nginx/1.31.3") {
		t.Errorf("nginx -v says %q, %v", out, err)
	}
}

func TestCatalogue(t *testing.T) {
	for _, p := range All() {
		for arch, w := range p.wheels {
			if len(w.sha256) != 64 || !strings.Contains(w.file, w.platform) || !strings.HasPrefix(w.file, strings.ReplaceAll(p.project, "-", "_")+"-"+p.release+"-") {
				t.Errorf("%s for %s does not agree with itself: %+v", p, arch, w)
			}
		}
	}
}
