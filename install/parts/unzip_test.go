package parts

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// archive makes a zip file of one entry.
func archive(t testing.TB, name string, mode fs.FileMode, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	h := &zip.FileHeader{Name: name, Method: zip.Deflate}
	h.SetMode(mode)
	w, err := z.CreateHeader(h)
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpackBytes(data []byte, dir string) error {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return err
	}
	return unpack(z, dir, nil)
}

func TestUnpackRefuses(t *testing.T) {
	for name, data := range map[string][]byte{
		"parent":    archive(t, "../escaped", 0o644, "x"),
		"inner":     archive(t, "a/../../escaped", 0o644, "x"),
		"absolute":  archive(t, "/escaped", 0o644, "x"),
		"backslash": archive(t, `..\escaped`, 0o644, "x"),
		"symlink":   archive(t, "link", fs.ModeSymlink|0o777, "/etc"),
		"device":    archive(t, "null", fs.ModeDevice|0o666, ""),
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "in")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unpackBytes(data, dir); !errors.Is(err, errArchive) {
				t.Errorf("error is %v", err)
			}
			if _, err := os.Lstat(filepath.Join(parent, "escaped")); err == nil {
				t.Error("a file got out")
			}
		})
	}
}

func TestUnpackMarksPrograms(t *testing.T) {
	dir := t.TempDir()
	if err := unpackBytes(archive(t, "bin/program", 0o755, "x"), dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "bin", "program"))
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, "a/b", 0o755, "content"))
	f.Add(archive(f, "../b", 0o644, "content"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = unpackBytes(data, dir) // an error or not, but:
		outside, err := os.ReadDir(parent)
		if err != nil || len(outside) != 1 {
			t.Errorf("outside of the directory: %v, %v", outside, err)
		}
	})
}
