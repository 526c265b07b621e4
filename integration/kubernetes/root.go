package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"time"

	"github.com/heddle-mesh/heddle/identity/ca"
)

// RootSecret is the Secret with the root of the mesh's certificates: the files of an
// authority (identity/ca) by name.
const RootSecret = "heddle-root"

// lookForRoots is how often a replica looks for what another has made of the root.
const lookForRoots = 10 * time.Second

// rootsSpread is how long after a step all replicas have taken it. One that cannot read the
// Secret for longer, while others write it, would give workloads a bundle that is too old.
const rootsSpread = time.Minute

// Roots keeps the root that all replicas sign with. A step of its rotation is made on a copy
// and is in force when the Secret has it, so that of two replicas that make one only one
// does.
type Roots struct {
	Client    *Client
	Namespace string
	Authority ca.Config
	Log       *slog.Logger

	seen string // version of the Secret that was taken last
}

// shared is what the Secret has.
type shared struct {
	files   ca.Files
	others  map[string][]byte // keys that are not ours, and stay
	version string
}

// Share puts the root into the authority's folder dir, before it is opened. The first
// replica of all makes one; the Secret that is created first wins.
func (r *Roots) Share(ctx context.Context, dir string) error {
	now, err := r.read(ctx)
	if err == nil && now == nil {
		now, err = r.make(ctx)
	}
	if err != nil {
		return err
	}
	r.seen = now.version
	return ca.WriteFiles(dir, now.files)
}

// read gives what the Secret has; nil where there is none.
func (r *Roots) read(ctx context.Context) (*shared, error) {
	data, version, err := r.Client.Secret(ctx, r.Namespace, RootSecret)
	if err != nil || version == "" {
		return nil, err
	}
	files, err := ca.FilesOf(data)
	if err == nil {
		err = files.Check(r.Authority.TrustDomain)
	}
	if err != nil {
		return nil, r.errorf("%w; restore it from a backup", err)
	}
	for name := range files {
		delete(data, name)
	}
	return &shared{files, data, version}, nil
}

// present is read, of a Secret that must be there.
func (r *Roots) present(ctx context.Context) (*shared, error) {
	now, err := r.read(ctx)
	if err == nil && now == nil {
		err = r.errorf("it is not there; restore it from a backup")
	}
	return now, err
}

func (r *Roots) errorf(format string, args ...any) error {
	return fmt.Errorf("root certificate in Secret %s/%s: %w", r.Namespace, RootSecret, fmt.Errorf(format, args...))
}

// make makes a root and stores it, or gives the one that another replica stored first.
func (r *Roots) make(ctx context.Context) (*shared, error) {
	files, err := r.onCopy(nil, func(*ca.CA) error { return nil })
	if err != nil {
		return nil, err
	}
	err = r.Client.UpdateSecret(ctx, r.Namespace, RootSecret, "", files)
	if err != nil && !errors.Is(err, ErrConflict) {
		return nil, err
	}
	return r.present(ctx)
}

// onCopy takes a step with a copy of an authority, and gives its files after it.
func (r *Roots) onCopy(files ca.Files, step func(*ca.CA) error) (ca.Files, error) {
	dir, err := os.MkdirTemp("", "heddle-root-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := ca.WriteFiles(dir, files); err != nil {
		return nil, err
	}
	authority, err := ca.Open(dir, r.Authority)
	if err != nil {
		return nil, err
	}
	if err := step(authority); err != nil {
		return nil, err
	}
	return ca.ReadFiles(dir)
}

// step takes a step from what the Secret has now, and adopts it.
func (r *Roots) step(ctx context.Context, authority *ca.CA, now *shared, step func(*ca.CA) error) error {
	next, err := r.onCopy(now.files, step)
	if err != nil {
		return err
	}
	data := maps.Clone(now.others)
	maps.Copy(data, next)
	if err := r.Client.UpdateSecret(ctx, r.Namespace, RootSecret, now.version, data); err != nil {
		return err
	}
	return authority.Adopt(next)
}

// Prepare begins a rotation of the root.
func (r *Roots) Prepare(ctx context.Context, authority *ca.CA) error {
	now, err := r.present(ctx)
	if err != nil {
		return err
	}
	return r.step(ctx, authority, now, (*ca.CA).PrepareRoot)
}

// Follow takes what other replicas have made of the root, and the steps of a rotation when
// they are due, until the context is done. What is wrong is logged, once.
func (r *Roots) Follow(ctx context.Context, authority *ca.CA) error {
	return repeat(ctx, lookForRoots, func(ctx context.Context) error {
		version, err := r.look(ctx, authority, r.seen)
		if version != "" {
			r.seen = version
		}
		return err
	}, func(err error) { r.Log.Error("the mesh goes on with the root that it has", "error", err) })
}

// look adopts what is new in the Secret, and takes the step that is due. It gives the version
// that need not be adopted again.
func (r *Roots) look(ctx context.Context, authority *ca.CA, seen string) (string, error) {
	now, err := r.present(ctx)
	if err != nil {
		return "", err
	}
	if now.version != seen {
		if err := authority.Adopt(now.files); err != nil {
			return "", r.errorf("%w", err)
		}
	}
	if due := authority.Due(); due.IsZero() || time.Now().Before(due.Add(rootsSpread)) {
		return now.version, nil
	}
	err = r.step(ctx, authority, now, (*ca.CA).Advance)
	if errors.Is(err, ErrConflict) || errors.Is(err, ca.ErrTooEarly) {
		return "", nil // another replica was first: the next look shows what it did
	}
	if err == nil {
		r.Log.Info("the rotation of the root goes on", "next", authority.Due())
	}
	return "", err
}
