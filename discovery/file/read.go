package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 16 << 20

// manifestFile reports whether a name is one of ours: not hidden, not an editor's
// backup or lock (#x#, .#x, x~, .x.swp). Names that begin with a dot include the
// directories behind a Kubernetes ConfigMap's links (..data).
func manifestFile(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// read gives what the files say. A wrong file has the content that is in force; where
// none is, it is left out. Its errors are the problems.
func (s *Source) read() (map[string]*content, []*manifest.Error, error) {
	entries, err := os.ReadDir(s.config.Directory)
	if err != nil {
		return nil, nil, fmt.Errorf("read directory: %w", err)
	}
	found := make(map[string]*content)
	var problems []*manifest.Error
	for _, entry := range entries {
		if !manifestFile(entry.Name()) {
			continue
		}
		path := filepath.Join(s.config.Directory, entry.Name())
		inForce := s.files[path]
		c, errs := s.readFile(path, inForce)
		problems = append(problems, errs...)
		if len(errs) > 0 {
			c = inForce
		}
		if c != nil {
			found[path] = c
		}
	}
	return found, problems, nil
}

// readFile gives a file's content; nil is for a file that is gone meanwhile, or is not
// a regular file.
func (s *Source) readFile(path string, inForce *content) (*content, []*manifest.Error) {
	wrong := func(format string, args ...any) (*content, []*manifest.Error) {
		return nil, []*manifest.Error{{Source: path, Message: fmt.Sprintf(format, args...)}}
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(path); err == nil {
			return wrong("is a link to nothing; its objects stay as they were, repair or remove the link")
		}
		return nil, nil
	}
	if err != nil {
		return wrong("%v", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil
	}
	data, err := readLimited(path)
	if err != nil {
		return wrong("%v", err)
	}
	hash := sha256.Sum256(data)
	if inForce != nil && inForce.hash == hash {
		return inForce, nil
	}
	objects, err := manifest.Parse(path, data, s.config.Options)
	var list manifest.Errors
	if errors.As(err, &list) {
		return nil, list
	}
	if err != nil {
		return wrong("%v", err)
	}
	if len(objects) == 0 && inForce != nil && len(inForce.objects) > 0 {
		return wrong("has no objects any more, as a file that is being written; the %d it had stay, remove the file to remove them", len(inForce.objects))
	}
	c := &content{hash: hash, objects: make(map[mesh.Ref]manifest.Object)}
	for _, o := range objects {
		c.objects[o.Ref] = o
	}
	return c, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("is larger than %d bytes; split it", maxFile)
	}
	return data, err
}

// settleClashes decides who has an object that two files, or a file and the API, claim:
// who has it already, else the first by name. The file that loses keeps all of the
// content that is in force. Each round takes at least one file back, so that it ends.
func (s *Source) settleClashes(found map[string]*content, refused map[mesh.Ref]state.Conflict) (map[string]*content, []*manifest.Error) {
	next := maps.Clone(found)
	var problems []*manifest.Error
	for {
		owner := s.owners(next)
		var losers []string
		for _, file := range slices.Sorted(maps.Keys(next)) {
			before := len(problems)
			for ref, o := range next[file].objects {
				message := ""
				if c, ok := refused[ref]; ok && s.files[file].lacks(ref) {
					message = (&state.ConflictError{Conflicts: []state.Conflict{c}}).Error()
				} else if owner[ref] != file {
					message = fmt.Sprintf("the file %s has this object already; remove one of the two", owner[ref])
				}
				if message != "" {
					problems = append(problems, &manifest.Error{Source: file, Line: o.Line, Ref: ref, Message: message})
				}
			}
			if len(problems) > before {
				losers = append(losers, file)
			}
		}
		if len(losers) == 0 {
			return next, problems
		}
		for _, file := range losers {
			if inForce := s.files[file]; inForce != nil && next[file] != inForce {
				next[file] = inForce
			} else {
				delete(next, file)
			}
		}
	}
}

func (c *content) lacks(ref mesh.Ref) bool {
	if c == nil {
		return true
	}
	_, has := c.objects[ref]
	return !has
}

// owners says which file has each object.
func (s *Source) owners(next map[string]*content) map[mesh.Ref]string {
	owner := make(map[mesh.Ref]string)
	for _, file := range slices.Sorted(maps.Keys(next)) {
		for ref := range next[file].objects {
			if _, claimed := owner[ref]; !claimed || !s.files[file].lacks(ref) {
				owner[ref] = file
			}
		}
	}
	return owner
}
