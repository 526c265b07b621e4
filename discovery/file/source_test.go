package file

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
)

// bench is a directory with a source, and a mesh behind it.
type bench struct {
	t      *testing.T
	dir    string
	state  string
	db     *state.DB
	writer *state.Writer
	store  *mesh.Store
	source *Source
	moved  chan struct{} // a batch arrived
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), state: t.TempDir(), moved: make(chan struct{}, 1000)}
	b.start()
	return b
}

func (b *bench) start() {
	b.t.Helper()
	db, err := state.Open(b.state, state.DefaultConfig())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = db.Close() })
	b.db, b.store = db, mesh.NewStore(mesh.DefaultMeshConfig())
	b.writer = state.NewWriter(db, func(changes []mesh.Change) (uint64, map[mesh.Ref][]string, error) {
		err := b.store.Apply(changes, nil)
		b.moved <- struct{}{}
		return b.store.Snapshot().Revision, nil, err
	})
	config := DefaultConfig()
	config.Directory, config.Writer, config.Log = b.dir, b.writer, slog.New(slog.DiscardHandler)
	if b.source, err = New(config); err != nil {
		b.t.Fatal(err)
	}
	changes, bad, err := b.writer.Load(b.source.Directory(), api.Decode(config.Options))
	if err != nil || bad != nil {
		b.t.Fatal(bad, err)
	}
	if err := b.store.Apply(changes, nil); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) restart() {
	b.t.Helper()
	if err := b.db.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.start()
}

// write makes a file of services, NAME or NAME=PORT; other text stands as it is.
func (b *bench) write(file string, services ...string) {
	b.t.Helper()
	var text strings.Builder
	for _, s := range services {
		if strings.Contains(s, "\n") || s == "" {
			text.WriteString(s)
			continue
		}
		name, port, ok := strings.Cut(s, "=")
		if !ok {
			port = "80"
		}
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: %s}]}\n", name, port)
	}
	if err := os.WriteFile(filepath.Join(b.dir, file), []byte(text.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) services() string {
	var out []string
	for _, name := range []string{"a", "b", "c", "d"} {
		if svc, ok := b.store.Snapshot().Services.Lookup(mesh.Name{Namespace: "default", Name: name}); ok {
			out = append(out, fmt.Sprintf("%s=%d/%d", name, svc.Ports[0].Port, svc.Generation))
		}
	}
	return strings.Join(out, " ")
}

// expect scans, and compares the services (NAME=PORT/GENERATION) and the problems.
func (b *bench) expect(services string, problems ...string) {
	b.t.Helper()
	b.source.Scan()
	if got := b.services(); got != services {
		b.t.Errorf("services %q, want %q", got, services)
	}
	var found []string
	for _, p := range b.source.Problems() {
		found = append(found, p.Error())
	}
	for i, want := range problems {
		if i >= len(found) || !strings.Contains(found[i], want) {
			b.t.Errorf("problems %q, want %q", found, problems)
		}
	}
	if len(found) != len(problems) {
		b.t.Errorf("problems %q, want %q", found, problems)
	}
}

func (b *bench) remove(file string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, file)); err != nil {
		b.t.Fatal(err)
	}
}

func TestLastGoodContentStays(t *testing.T) {
	b := newBench(t)
	b.expect("")
	b.write("x.yaml", "a", "b")
	b.write("y.yml", "c")
	b.write("x.yaml~", "d")
	b.write(".x.yaml", "d")
	b.write("#x.yaml", "d")
	b.write("x.txt", "d")
	b.expect("a=80/1 b=80/1 c=80/1")
	b.write("x.yaml", "a=81", "---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {prots: []}\n")
	b.expect("a=80/1 b=80/1 c=80/1", "x.yaml:10: Service default/b: spec.prots: unknown field; did you mean ports?", "spec.ports: missing")
	b.restart()
	b.expect("a=80/1 b=80/1 c=80/1", "spec.prots", "spec.ports")
	b.write("x.yaml", "")
	b.expect("a=80/1 b=80/1 c=80/1", "has no objects any more")
	b.write("x.yaml", "a=81")
	b.expect("a=81/2 c=80/1")
	b.remove("y.yml")
	b.expect("a=81/2")
	b.restart()
	b.expect("a=81/2")
	b.remove("x.yaml")
	b.expect("")
}

func TestRemovedWhileDown(t *testing.T) {
	b := newBench(t)
	b.write("x.yaml", "a")
	b.write("y.yaml", "b")
	b.expect("a=80/1 b=80/1")
	b.remove("x.yaml")
	b.restart()
	if got := b.services(); got != "a=80/1 b=80/1" {
		t.Errorf("before the first scan: %s", got)
	}
	b.expect("b=80/1")
}

func TestSameObjectInTwoFiles(t *testing.T) {
	b := newBench(t)
	b.write("m.yaml", "a", "b")
	b.expect("a=80/1 b=80/1")
	b.write("c.yaml", "c", "a=99") // the later, though the first by name
	b.expect("a=80/1 b=80/1", "c.yaml:7: Service default/a: the file "+filepath.Join(b.dir, "m.yaml")+" has this object already")
	b.write("m.yaml", "b")
	b.expect("a=99/2 b=80/1 c=80/1")
	// An object moves between files in one scan, and keeps its generation.
	b.write("c.yaml", "c")
	b.write("m.yaml", "a=99", "b")
	b.expect("a=99/2 b=80/1 c=80/1")
}

func TestObjectOfTheAPI(t *testing.T) {
	b := newBench(t)
	objects, err := manifest.Parse("", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 7}]}"), manifest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	item := state.Item{Object: objects[0].Object, Document: objects[0].Document}
	if _, err := b.writer.Write(state.Batch{Put: []state.Item{item}}); err != nil {
		t.Fatal(err)
	}
	b.write("x.yaml", "a", "b")
	b.write("y.yaml", "c")
	b.expect("a=7/1 c=80/1", "x.yaml:2: Service default/a: Service default/a was applied over the API")
	if _, err := b.writer.Write(state.Batch{Delete: []state.Delete{{Ref: objects[0].Ref}}}); err != nil {
		t.Fatal(err)
	}
	b.expect("a=80/1 b=80/1 c=80/1")
}

func TestConfigMapLinks(t *testing.T) {
	b := newBench(t)
	version := func(name, port string) {
		if err := os.Mkdir(filepath.Join(b.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		b.write(name+"/x.yaml", "a="+port)
		link := filepath.Join(b.dir, "..tmp")
		if err := os.Symlink(name, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(b.dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "1")
	if err := os.Symlink("..data/x.yaml", filepath.Join(b.dir, "x.yaml")); err != nil {
		t.Fatal(err)
	}
	b.expect("a=1/1")
	version("..2", "2")
	b.expect("a=2/2")
	if err := os.RemoveAll(filepath.Join(b.dir, "..2")); err != nil {
		t.Fatal(err)
	}
	b.expect("a=2/2", "link to nothing")
}

func TestDirectoryGone(t *testing.T) {
	b := newBench(t)
	b.write("x.yaml", "a")
	b.expect("a=80/1")
	away := b.dir + "-away"
	if err := os.Rename(b.dir, away); err != nil {
		t.Fatal(err)
	}
	b.expect("a=80/1", "everything stays as it was")
	if err := os.Rename(away, b.dir); err != nil {
		t.Fatal(err)
	}
	b.expect("a=80/1")
}

// TestWatch writes files in the ways of editors while the source runs.
func TestWatch(t *testing.T) { watch(t) }

// TestWatchWithoutNotices does the same where the kernel gives no notices: in a user
// namespace that may have none.
func TestWatchWithoutNotices(t *testing.T) {
	const variable = "HEDDLE_TEST_NO_NOTICES"
	if os.Getenv(variable) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestWatchWithoutNotices$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in a child: %v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if w, err := fsnotify.NewWatcher(); err == nil {
		w.Close()
		t.Fatal("there are notices all the same")
	}
	watch(t)
}

func watch(t *testing.T) {
	t.Helper()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.source.Run(ctx) }()
	wait := func(want string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for b.services() != want {
			select {
			case <-b.moved:
			case <-deadline:
				t.Fatalf("services %q, want %q", b.services(), want)
			}
		}
	}
	b.write("x.yaml", "a")
	wait("a=80/1")
	b.write("new.tmp", "a=81", "b")
	if err := os.Rename(filepath.Join(b.dir, "new.tmp"), filepath.Join(b.dir, "x.yaml")); err != nil {
		t.Fatal(err)
	}
	wait("a=81/2 b=80/1")
	b.write("x.yaml", "") // truncated, then written
	b.write("x.yaml", "a=82", "b")
	wait("a=82/3 b=80/1")
	b.remove("x.yaml")
	wait("")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
