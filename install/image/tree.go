package image

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Tree lists the files below a directory of this machine, for the same places below another
// in the image. A link to a file becomes a copy of that. from may be a file, too.
func Tree(from, to string) ([]File, error) {
	var out []File
	err := filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a directory", file)
		}
		below, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755 // for whoever is the user of the container
		}
		out = append(out, File{From: file, To: path.Join(to, filepath.ToSlash(below)), Mode: mode})
		return nil
	})
	return out, err
}
