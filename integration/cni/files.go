package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// temporary are the names of files that are being written.
const temporary = "." + Name + "-*.tmp"

// edit changes a file in one step, and gives its path if that made a difference.
func edit(path string, change func([]byte) ([]byte, error)) (wrote string, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file, and cannot be replaced in one step", path)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	after, err := change(before)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if bytes.Equal(before, after) {
		return "", nil
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(before, now) {
		return "", fmt.Errorf("%s was changed meanwhile", path) // which is an event, and we look again
	}
	return path, replace(path, info.Mode().Perm(), bytes.NewReader(after))
}

// replace puts a file in its place in one step: nobody ever sees a part of it.
func replace(path string, mode os.FileMode, content io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, content)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// sweep removes what an end in the middle of replace left behind.
func sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, temporary))
	if err != nil {
		return err
	}
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
