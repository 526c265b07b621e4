package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestWrite writes an image twice and looks into it as an engine would.
func TestWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!"), 0o700); err != nil {
		t.Fatal(err)
	}
	image := Image{
		Name: "test.local/app:1", User: "1337:1337", Entrypoint: []string{"/bin/app"},
		Files: []File{{From: file, To: "/bin/app", Mode: 0o755}}, Dirs: []Dir{{Path: "/tmp", Mode: 0o777 | os.ModeSticky}, {Path: "/data", Mode: 0o700, Owner: 1337}},
	}
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := Write(b, image); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("equal inputs make different bytes")
	}
	files := untar(t, &first)
	var manifests []manifest
	if err := json.Unmarshal(files["manifest.json"], &manifests); err != nil {
		t.Fatal(err)
	}
	var c config
	if err := json.Unmarshal(files[manifests[0].Config], &c); err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "1337:1337" || manifests[0].RepoTags[0] != image.Name {
		t.Errorf("config %+v of %v", c.Config, manifests[0].RepoTags)
	}
	layer := tar.NewReader(bytes.NewReader(files[manifests[0].Layers[0]]))
	modes := map[string]int64{}
	for {
		h, err := layer.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[h.Name] = h.Mode
		if want := map[bool]int{true: 1337}[h.Name == "data/"]; h.Uid != want || h.Gid != want {
			t.Errorf("%s is of %d:%d, want %d", h.Name, h.Uid, h.Gid, want)
		}
	}
	for name, mode := range map[string]int64{"bin/": 0o755, "bin/app": 0o755, "tmp/": 0o1777, "data/": 0o700} {
		if modes[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, modes[name], mode)
		}
	}
}

// TestTree has links, modes and text.
func TestTree(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin/run": 0o700, "share/text": 0o600} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("text", filepath.Join(dir, "share", "link")); err != nil {
		t.Fatal(err)
	}
	files, err := Tree(dir, "/opt/part")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, Image{Name: "test.local/tree:1", Files: append(files, File{To: "/etc/passwd", Text: "me"})}); err != nil {
		t.Fatal(err)
	}
	outer := untar(t, &b)
	var manifests []manifest
	if err := json.Unmarshal(outer["manifest.json"], &manifests); err != nil {
		t.Fatal(err)
	}
	inner := untar(t, bytes.NewReader(outer[manifests[0].Layers[0]]))
	for name, want := range map[string]string{"opt/part/bin/run": "bin/run", "opt/part/share/link": "share/text", "etc/passwd": "me"} {
		if string(inner[name]) != want {
			t.Errorf("%s holds %q, want %q", name, inner[name], want)
		}
	}
	for _, f := range files {
		if want := map[bool]os.FileMode{true: 0o755, false: 0o644}[filepath.Base(f.To) == "run"]; f.Mode != want {
			t.Errorf("%s has mode %o, want %o", f.To, f.Mode, want)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "broken")); err != nil {
		t.Fatal(err)
	}
	if _, err := Tree(dir, "/"); err == nil {
		t.Error("a link to nothing was taken")
	}
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	out := map[string][]byte{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLibraries runs a dynamic program with nothing but what Libraries names.
func TestLibraries(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for chroot; .ci/run has it")
	}
	program, err := filepath.EvalSymlinks("/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	files, err := Libraries(program)
	if err != nil || len(files) == 0 {
		t.Fatalf("libraries %v, %v", files, err)
	}
	root := t.TempDir()
	for _, f := range append(files, File{From: program, To: "/ls"}) {
		data, err := os.ReadFile(f.From)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, f.To)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chroot", root, "/ls", "/").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
