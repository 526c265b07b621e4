package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/heddle-mesh/heddle/identity/statefile"
)

// Files are the files of an authority by name: all that its replicas share. They are secret.
type Files map[string][]byte

// Format keeps the keys out of logs whatever the verb.
func (f Files) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%d files of an authority", len(f)) }

// fileNames are all that an authority has, in the order in which they are written: what says
// who is trusted goes before who signs.
var fileNames = []string{linkFile, oldFile, nextFile, rootFile}

// FilesOf takes the files of an authority out of data, which may have others.
func FilesOf(data map[string][]byte) (Files, error) {
	files := Files{}
	for _, name := range fileNames {
		if len(data[name]) > maxRootFile {
			return nil, fmt.Errorf("key %s has %d bytes, more than %d", name, len(data[name]), maxRootFile)
		}
		if len(data[name]) > 0 {
			files[name] = data[name]
		}
	}
	if len(files[rootFile]) == 0 {
		return nil, fmt.Errorf("key %s is empty or not there; it holds the root's certificate and key in PEM", rootFile)
	}
	return files, nil
}

// Check reports what is wrong with the files of an authority of a trust domain.
func (f Files) Check(trustDomain string) error {
	td, err := gospiffe.TrustDomainFromString(trustDomain)
	if err != nil {
		return fmt.Errorf("trust domain %q: %w", trustDomain, err)
	}
	_, err = (&CA{trustDomain: td}).parse(f, byName)
	return err
}

// byName calls a file by its name alone, for those that are not in a folder.
func byName(name string) string { return name }

// ReadFiles gives the files of the authority in dir.
func ReadFiles(dir string) (Files, error) {
	files := Files{}
	for _, name := range fileNames {
		data, err := statefile.Read(filepath.Join(dir, name), maxRootFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}

// WriteFiles makes dir that of the authority of files.
func WriteFiles(dir string, files Files) error {
	if err := statefile.MkdirAll(dir); err != nil {
		return err
	}
	for _, name := range fileNames {
		path := filepath.Join(dir, name)
		if data, ok := files[name]; ok {
			if err := statefile.Write(path, data); err != nil {
				return err
			}
		} else if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return statefile.Sync(dir)
}

// Adopt goes on with files that another replica has brought to their next step. It refuses
// those that no rotation of ours leads to: with a root that nobody knows yet, every
// connection of the mesh would break. After an error everything is as before.
func (c *CA) Adopt(files Files) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, now := c.current.Load(), c.config.Now()
	if before.issued() {
		return fmt.Errorf("adopt roots: %w", ErrIssued)
	}
	next, err := c.parse(files, byName)
	if err != nil {
		return fmt.Errorf("adopt roots: %w", err)
	}
	if !next.follows(before) {
		return fmt.Errorf("adopt roots: the root in %s is not one that heddle ca rotate prepared: workloads do not know it, and would be cut off; put the former content back", rootFile)
	}
	if now.After(next.root.cert.NotAfter) {
		return fmt.Errorf("adopt roots: the root in %s expired on %s", rootFile, next.root.cert.NotAfter.Format(time.DateTime))
	}
	if next.sameRoots(before) {
		return nil
	}
	if err := WriteFiles(c.dir, files); err != nil {
		return fmt.Errorf("adopt roots: %w", err)
	}
	return c.publish(next, now)
}

// follows tells whether a rotation, of which we may have missed steps, leads from before to a.
func (a *authority) follows(before *authority) bool {
	if before.bundle.HasX509Authority(a.root.cert) {
		return true
	}
	for _, o := range a.old {
		if o.cert.Equal(before.root.cert) {
			return true
		}
	}
	for _, cert := range a.links {
		if cert.Equal(before.root.cert) {
			return true
		}
	}
	return false
}

// sameRoots tells whether both sign by, and trust, the same.
func (a *authority) sameRoots(b *authority) bool {
	x, y := a.roots(), b.roots()
	if len(x) != len(y) || len(a.old) != len(b.old) || !a.root.cert.Equal(b.root.cert) {
		return false
	}
	for i := range x {
		if !x[i].Equal(y[i]) {
			return false
		}
	}
	for i := range a.old {
		if !a.old[i].replaced.Equal(b.old[i].replaced) {
			return false
		}
	}
	return true
}
