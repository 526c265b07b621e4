package local

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/heddle-mesh/heddle/proxy/capture"
)

// reachable gives a folder with the programs of dir that every user can get to. Root's
// checkout may lie in root's home; a program that runs as another user would not be found
// there. For a plain user dir is good as it is.
func (p Project) reachable(dir string) (string, error) {
	if !capture.MachineRoot() {
		return dir, nil
	}
	to := p.path("bin")
	if err := makeDir(to, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || e.Name() == "heddle" {
			continue
		}
		if err := install(filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return "", fmt.Errorf("make %s reachable: %w", e.Name(), err)
		}
	}
	return to, nil
}

// install copies a program in one step, so that one that runs is not disturbed.
func install(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".install-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // no longer there when all went well
	if _, err = io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := os.Chmod(out.Name(), 0o755); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}
