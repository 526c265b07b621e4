package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
)

// Config of a Source.
type Config struct {
	Directory string
	Options   manifest.Options
	Writer    *state.Writer
	Log       *slog.Logger
	// Settle is how long the directory must be quiet before it is read: longer than an
	// editor takes between truncating a file and writing it.
	Settle time.Duration
	// Rescan is how often it is read without a notice, for file systems that give none.
	Rescan time.Duration
}

// DefaultConfig has all but the directory, options, writer and log.
func DefaultConfig() Config {
	return Config{Settle: 20 * time.Millisecond, Rescan: 30 * time.Second}
}

// Source watches one directory.
type Source struct {
	config   Config
	files    map[string]*content // in force, by path; owned by Scan
	problems atomic.Pointer[[]*manifest.Error]
	reported map[string]bool // problems that are in the log already
}

// content is what one file says.
type content struct {
	hash    [32]byte // of the bytes read; zero for what state remembers
	objects map[mesh.Ref]manifest.Object
}

// New makes a source of the directory. What state remembers of its files is in force
// until the first Scan.
func New(c Config) (*Source, error) {
	directory, err := filepath.Abs(c.Directory)
	if err != nil {
		return nil, fmt.Errorf("directory of manifests %s: %w", c.Directory, err)
	}
	c.Directory = directory
	s := &Source{config: c, files: make(map[string]*content), reported: make(map[string]bool)}
	s.problems.Store(&[]*manifest.Error{})
	records, err := c.Writer.DB().Records("")
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if r.File == "" {
			continue
		}
		one := s.files[r.File]
		if one == nil {
			one = &content{objects: make(map[mesh.Ref]manifest.Object)}
			s.files[r.File] = one
		}
		objects, err := manifest.Parse(r.File, r.Document, c.Options)
		if err != nil || len(objects) != 1 {
			c.Log.Warn("stored object of a file cannot be read", "object", r.Ref.String(), "file", r.File, "error", err)
			one.objects[r.Ref] = manifest.Object{Ref: r.Ref} // known, so that it can end
			continue
		}
		one.objects[r.Ref] = objects[0]
	}
	return s, nil
}

// Directory is the absolute path of the directory; the one for state.Writer.Load.
func (s *Source) Directory() string { return s.config.Directory }

// Problems is what is wrong in the directory at the last scan, by file and line.
func (s *Source) Problems() []*manifest.Error { return *s.problems.Load() }

// Run scans the directory at once and whenever it changes, until ctx ends. It and Scan
// must not run at the same time.
func (s *Source) Run(ctx context.Context) error {
	pace := s.config.Rescan
	watcher, err := fsnotify.NewWatcher()
	if err != nil { // machines with many containers run out of notices (fs.inotify.max_user_instances)
		s.config.Log.Warn("no notices of changes, reading the directory every second instead", "directory", s.config.Directory, "error", err)
		watcher, pace = new(fsnotify.Watcher), min(pace, time.Second)
	} else {
		defer watcher.Close()
	}
	rescan := time.NewTicker(pace)
	defer rescan.Stop()
	settled := time.NewTimer(0)
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			settled.Reset(s.config.Settle)
		case err := <-watcher.Errors:
			// Notices were lost, most likely; the scan does not need them.
			s.config.Log.Warn("watch directory", "directory", s.config.Directory, "error", err)
			settled.Reset(s.config.Settle)
		case <-settled.C:
			s.watchAndScan(watcher)
		case <-rescan.C:
			s.watchAndScan(watcher)
		}
	}
}

// watchAndScan adds the watch anew, for a directory that was replaced or is new, before
// it reads, so that no change falls between.
func (s *Source) watchAndScan(watcher *fsnotify.Watcher) {
	if watcher.Events == nil { // there are no notices
		s.Scan()
		return
	}
	if err := watcher.Add(s.config.Directory); err != nil {
		s.config.Log.Debug("watch directory", "directory", s.config.Directory, "error", err)
	}
	s.Scan()
}

// Scan reads the directory once and writes what changed.
func (s *Source) Scan() {
	found, problems, err := s.read()
	if err != nil {
		// A directory that cannot be read says nothing about its objects.
		s.report([]*manifest.Error{{Source: s.config.Directory,
			Message: fmt.Sprintf("%v; everything stays as it was, restore the directory", err)}})
		return
	}
	refused := make(map[mesh.Ref]state.Conflict)
	for {
		next, clashes := s.settleClashes(found, refused)
		batch := s.difference(next)
		if len(batch.Put)+len(batch.Delete) > 0 {
			_, err := s.config.Writer.Write(batch)
			var conflict *state.ConflictError
			if errors.As(err, &conflict) {
				before := len(refused)
				for _, c := range conflict.Conflicts {
					refused[c.Ref] = c
				}
				if len(refused) > before {
					continue
				}
			}
			if err != nil {
				s.report(append(problems, &manifest.Error{Source: s.config.Directory, Message: err.Error()}))
				return
			}
		}
		s.files = next
		s.report(append(problems, clashes...))
		return
	}
}

// difference is the batch that takes the mesh from what is in force to next.
func (s *Source) difference(next map[string]*content) state.Batch {
	var batch state.Batch
	had := make(map[mesh.Ref]string) // the document in force
	hadFile := make(map[mesh.Ref]string)
	for file, c := range s.files {
		for ref, o := range c.objects {
			had[ref], hadFile[ref] = string(o.Document), file
		}
	}
	for file, c := range next {
		for ref, o := range c.objects {
			if o.Object != nil && (had[ref] != string(o.Document) || hadFile[ref] != file) {
				batch.Put = append(batch.Put, state.Item{Object: fresh(o, s.config.Options), Document: o.Document, File: file})
			}
			delete(hadFile, ref)
		}
	}
	for ref, file := range hadFile {
		batch.Delete = append(batch.Delete, state.Delete{Ref: ref, File: file})
	}
	slices.SortFunc(batch.Put, func(a, b state.Item) int { return a.Object.Header().Ref.Compare(b.Object.Header().Ref) })
	slices.SortFunc(batch.Delete, func(a, b state.Delete) int { return a.Ref.Compare(b.Ref) })
	return batch
}

// fresh is a value of its own for each write: a written one belongs to the mesh.
func fresh(o manifest.Object, options manifest.Options) mesh.Object {
	again, err := manifest.Parse(o.Source, o.Document, options)
	if err != nil || len(again) != 1 {
		return o.Object // cannot be: what was parsed parses again
	}
	return again[0].Object
}

// report publishes the problems and logs those that are new.
func (s *Source) report(problems []*manifest.Error) {
	slices.SortStableFunc(problems, func(a, b *manifest.Error) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line))
	})
	reported := make(map[string]bool)
	for _, p := range problems {
		text := p.Error()
		if !s.reported[text] {
			s.config.Log.Error("manifest not in force", "problem", text)
		}
		reported[text] = true
	}
	s.reported = reported
	s.problems.Store(&problems)
}
