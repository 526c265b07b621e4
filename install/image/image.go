// Package image writes container images as archives, from files of this machine and
// without a container engine: what `docker load`, `podman load` and `ctr images import`
// take. Equal inputs make equal bytes.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Image is what goes into an archive.
type Image struct {
	Name       string // with its tag, such as heddle.local/heddle:dev
	Files      []File
	Dirs       []Dir
	Entrypoint []string
	Command    []string
	User       string // UID or UID:GID; "" = root
	Env        []string
	Labels     map[string]string
}

// File is a file of this machine, or text, and its place in the image.
type File struct {
	From, To string // To is absolute
	Mode     os.FileMode
	Text     string // in place of From
}

// Dir is an empty directory of the image. Those above files need not be named.
type Dir struct {
	Path  string
	Mode  os.FileMode // with os.ModeSticky for a /tmp
	Owner int         // UID and GID; a new volume of an engine's is like the directory below it
}

// config and its parts are those of the OCI image specification 1.1.
type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       runConfig `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
}

type runConfig struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// manifest is an entry of manifest.json, of the archives that docker save writes.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// WriteFile writes the archive to a file.
func WriteFile(file string, image Image) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := Write(f, image); err != nil {
		return err
	}
	return f.Close()
}

// Write writes the archive.
func Write(w io.Writer, image Image) error {
	layer, err := os.CreateTemp("", "heddle-layer-")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	digest := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, digest), image); err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	diff := hex.EncodeToString(digest.Sum(nil))
	data, err := json.Marshal(config{
		Created: time.Unix(0, 0).UTC(), Architecture: runtime.GOARCH, OS: "linux",
		Config: runConfig{
			User: image.User, Env: image.Env, Entrypoint: image.Entrypoint, Cmd: image.Command, WorkingDir: "/", Labels: image.Labels,
		},
		RootFS: rootFS{"layers", []string{"sha256:" + diff}},
	})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:]) + ".json"
	index, err := json.Marshal([]manifest{{name, []string{image.Name}, []string{diff + ".tar"}}})
	if err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out := tar.NewWriter(w)
	for _, part := range []struct {
		name string
		size int64
		data io.Reader
	}{
		{diff + ".tar", size, layer},
		{name, int64(len(data)), bytes.NewReader(data)},
		{"manifest.json", int64(len(index)), bytes.NewReader(index)},
	} {
		if err := out.WriteHeader(&tar.Header{Name: part.name, Mode: 0o644, Size: part.size, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := io.Copy(out, part.data); err != nil {
			return err
		}
	}
	return out.Close()
}

// writeLayer writes the file system of the image: directories, then files, which are root's.
func writeLayer(w io.Writer, image Image) error {
	out := tar.NewWriter(w)
	for _, d := range directories(image) {
		mode := int64(d.Mode.Perm())
		if d.Mode&os.ModeSticky != 0 {
			mode |= 0o1000
		}
		h := &tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(d.Path, "/") + "/", Mode: mode, Uid: d.Owner, Gid: d.Owner, Format: tar.FormatPAX}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
	}
	files := slices.Clone(image.Files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.To, b.To) })
	for _, f := range files {
		if err := writeFile(out, f); err != nil {
			return err
		}
	}
	return out.Close()
}

func writeFile(out *tar.Writer, f File) error {
	if f.From == "" {
		return writeContent(out, f, cmp.Or(f.Mode, 0o644), int64(len(f.Text)), strings.NewReader(f.Text))
	}
	in, err := os.Open(f.From)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	return writeContent(out, f, cmp.Or(f.Mode, info.Mode().Perm()&0o755), info.Size(), in)
}

func writeContent(out *tar.Writer, f File, mode os.FileMode, size int64, in io.Reader) error {
	h := &tar.Header{Name: strings.TrimPrefix(path.Clean(f.To), "/"), Mode: int64(mode), Size: size, Format: tar.FormatPAX}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(out, in)
	return err
}

// directories lists those that were named and those above files, parents first.
func directories(image Image) []Dir {
	all := map[string]Dir{}
	above := func(p string) {
		for p = path.Dir(p); p != "/" && p != "."; p = path.Dir(p) {
			if _, ok := all[p]; !ok {
				all[p] = Dir{Path: p, Mode: 0o755}
			}
		}
	}
	for _, f := range image.Files {
		above(path.Clean(f.To))
	}
	for _, d := range image.Dirs {
		d.Path = path.Clean(d.Path)
		above(d.Path)
		all[d.Path] = d
	}
	out := slices.Collect(maps.Values(all))
	slices.SortFunc(out, func(a, b Dir) int { return strings.Compare(a.Path, b.Path) })
	return out
}
