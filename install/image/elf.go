package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// libraryPaths are where the dynamic loader of Debian and its kin looks.
var libraryPaths = []string{"/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"}

// Libraries lists what a program needs to run, itself not included: the loader at the path
// that the program names, and the shared libraries, all as they are on this machine. Those
// that it finds relative to itself are not listed: they come with its directory. A static
// program needs nothing.
func Libraries(programs ...string) ([]File, error) {
	found := map[string]string{} // place in the image -> file
	for _, program := range programs {
		if err := needs(program, found); err != nil {
			return nil, err
		}
	}
	var out []File
	for to, from := range found {
		out = append(out, File{From: from, To: to, Mode: 0o755})
	}
	return out, nil
}

func needs(file string, found map[string]string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("read program %s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		data := make([]byte, p.Filesz)
		if _, err := p.ReadAt(data, 0); err != nil {
			return fmt.Errorf("read program %s: %w", file, err)
		}
		loader := string(data[:len(data)-1]) // it ends with a zero
		real, err := filepath.EvalSymlinks(loader)
		if err != nil {
			return fmt.Errorf("program %s needs its loader: %w", file, err)
		}
		found[loader] = real
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read program %s: %w", file, err)
	}
	for _, name := range libraries {
		if beside := besides(f, file, name); beside != "" {
			if err := needs(beside, found); err != nil {
				return err
			}
			continue
		}
		place, real, err := library(name)
		if err != nil {
			return fmt.Errorf("program %s: %w", file, err)
		}
		if _, ok := found[place]; ok {
			continue
		}
		found[place] = real
		if err := needs(real, found); err != nil {
			return err
		}
	}
	return nil
}

// besides finds a library where the program says that it is relative to it, if it does.
func besides(f *elf.File, program, name string) string {
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, _ := f.DynString(tag) // a program without a dynamic section has none
		for _, value := range values {
			for dir := range strings.SplitSeq(value, ":") {
				below, ok := strings.CutPrefix(dir, "$ORIGIN")
				file := filepath.Join(filepath.Dir(program), below, name)
				if _, err := os.Stat(file); ok && err == nil {
					return file
				}
			}
		}
	}
	return ""
}

func library(name string) (place, real string, err error) {
	for _, dir := range libraryPaths {
		place := filepath.Join(dir, name)
		real, err := filepath.EvalSymlinks(place)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", "", err
		}
		if info, err := os.Stat(real); err == nil && info.Mode().IsRegular() {
			return place, real, nil
		}
	}
	return "", "", fmt.Errorf("library %s is not in any of %v", name, libraryPaths)
}
