package parts

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Limits of what an archive may hold; the biggest part is a quarter of each.
// The checksums already make the archives trusted; this makes a wrong checksum
// in the catalogue, or a hand-made part, harmless too.
const (
	maxUnpacked = 512 << 20 // bytes in all
	maxFiles    = 20_000
)

var errArchive = errors.New("bad archive")

// unzip unpacks the zip file into dir, which must exist, without those whose
// names begin with one of drop. Names that lead outside of dir, anything but
// files and directories, and more than the limits are errors.
func unzip(file, dir string, drop []string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(file), err)
	}
	defer z.Close()
	if err := unpack(&z.Reader, dir, drop); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
	}
	return nil
}

func unpack(z *zip.Reader, dir string, drop []string) error {
	if len(z.File) > maxFiles {
		return fmt.Errorf("%w: it holds %d files, more than %d", errArchive, len(z.File), maxFiles)
	}
	// os.Root refuses every path that leaves dir, whatever the kind of trick.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	left := int64(maxUnpacked)
	for _, f := range z.File {
		if dropped(f.Name, drop) {
			continue
		}
		n, err := unpackFile(root, f, left)
		if err != nil {
			return fmt.Errorf("%q: %w", f.Name, err)
		}
		left -= n
	}
	return nil
}

func dropped(name string, drop []string) bool {
	for _, prefix := range drop {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// unpackFile writes one entry and returns its size; left is what it may take.
func unpackFile(root *os.Root, f *zip.File, left int64) (int64, error) {
	name := strings.TrimSuffix(f.Name, "/")
	if !filepath.IsLocal(name) || path.Clean(name) != name || strings.ContainsAny(name, "\\\x00") {
		return 0, fmt.Errorf("%w: unsafe name", errArchive)
	}
	mode := f.Mode()
	if mode.IsDir() {
		return 0, root.MkdirAll(name, 0o755)
	}
	if !mode.IsRegular() {
		return 0, fmt.Errorf("%w: not a file or directory but %s", errArchive, mode.Type())
	}
	if f.UncompressedSize64 > uint64(left) {
		return 0, fmt.Errorf("%w: more than %d bytes in all", errArchive, int64(maxUnpacked))
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return 0, err
	}
	perm := os.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return 0, err
	}
	n, err := copyEntry(out, f, left)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return n, err
}

func copyEntry(out io.Writer, f *zip.File, left int64) (int64, error) {
	in, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	n, err := io.Copy(out, io.LimitReader(in, left+1))
	if err == nil && n > left {
		err = fmt.Errorf("%w: more than %d bytes in all", errArchive, int64(maxUnpacked))
	}
	return n, err
}
