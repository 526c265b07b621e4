package state

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

func open(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(dir, DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func service(name string) mesh.Ref {
	return mesh.Ref{Kind: mesh.KindService, Name: mesh.Name{Namespace: "default", Name: name}}
}

func put(name, spec, label string) Put {
	return Put{Ref: service(name), Document: fmt.Appendf(nil, `{"metadata":{"label":%q},"spec":{"x":%q}}`, label, spec)}
}

func commit(t *testing.T, db *DB, puts []Put, deletes ...Delete) []Outcome {
	t.Helper()
	out, err := db.Commit(puts, deletes, false)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGenerationsAndCreated(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	first := commit(t, db, []Put{put("api", "1", "")})[0]
	if first.Action != Created || first.Generation != 1 || first.Created == 0 {
		t.Fatalf("first %+v", first)
	}
	for _, step := range []struct {
		put        Put
		action     Action
		generation int64
	}{
		{put("api", "1", ""), Unchanged, 1},
		{put("api", "1", "labelled"), Configured, 1},
		{put("api", "2", "labelled"), Configured, 2},
	} {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir)
		got := commit(t, db, []Put{step.put})[0]
		if want := (Outcome{service("api"), step.action, step.generation, first.Created}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	out := commit(t, db, nil, Delete{Ref: service("api")}, Delete{Ref: service("none")})
	if out[0].Action != Deleted || out[1].Action != Missing {
		t.Errorf("deletes %+v", out)
	}
}

func TestDryRunAndConflictStoreNothing(t *testing.T) {
	db := open(t, t.TempDir())
	if _, err := db.Commit([]Put{put("dry", "1", "")}, nil, true); err != nil {
		t.Fatal(err)
	}
	owned := put("owned", "1", "")
	owned.File = "/etc/mesh/a.yaml"
	commit(t, db, []Put{owned})
	_, err := db.Commit([]Put{put("new", "1", ""), put("owned", "2", "")}, []Delete{{Ref: service("owned")}}, false)
	var conflict *ConflictError
	if !errors.As(err, &conflict) || len(conflict.Conflicts) != 2 || !strings.Contains(err.Error(), owned.File) {
		t.Fatalf("error %v", err)
	}
	records, err := db.Records("")
	if err != nil || len(records) != 1 || records[0].Ref != owned.Ref || records[0].Generation != 1 {
		t.Fatalf("records %+v, %v", records, err)
	}
}

func TestLockedDirectoryIsNamed(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(dir, DefaultConfig())
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("error %v", err)
	}
}

func TestModesAndDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	db := open(t, dir)
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("not a database", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, DefaultConfig()); err == nil || !strings.Contains(err.Error(), fileName) {
		t.Fatalf("error %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	db := open(t, dir)
	commit(t, db, []Put{put("kept", "1", "")})
	big := strings.Repeat("x", 20_000)
	stored := 0
	for ; stored < 100; stored++ {
		if _, err := db.Commit([]Put{put(fmt.Sprint("big", stored), big, ""), put(fmt.Sprint("twin", stored), "1", "")}, nil, false); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("error %v", err)
			}
			break
		}
	}
	if stored == 0 || stored == 100 {
		t.Fatalf("stored %d", stored)
	}
	check := func(db *DB) {
		t.Helper()
		records, err := db.Records("")
		if err != nil || len(records) != 1+2*stored {
			t.Fatalf("%d records, %v; want %d", len(records), err, 1+2*stored)
		}
	}
	check(db)
	// With room again it goes on where it was. Without, even a delete needs a page.
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	commit(t, db, nil, Delete{Ref: service("big0")}, Delete{Ref: service("twin0")})
	stored--
	check(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir))
}

// TestKilled kills a process that writes, again and again: what it said was stored is
// there, and of every batch all or nothing.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("HEDDLE_TEST_WRITE"); dir != "" {
		db := open(t, dir)
		for i := 0; ; i++ {
			name := fmt.Sprintf("p%d-%d", os.Getpid(), i)
			commit(t, db, []Put{put(name+"-a", "1", ""), put(name+"-b", "1", "")})
			fmt.Println("stored", name)
		}
	}
	dir := t.TempDir()
	var acknowledged []string
	for round := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "HEDDLE_TEST_WRITE="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if name, ok := strings.CutPrefix(lines.Text(), "stored "); ok {
				acknowledged = append(acknowledged, name)
			}
			if n == 5+round {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
	}
	if len(acknowledged) < 5*5 {
		t.Fatalf("only %d were acknowledged", len(acknowledged))
	}
	db := open(t, dir)
	for _, name := range acknowledged {
		for _, half := range []string{"-a", "-b"} {
			if _, ok, err := db.Record(service(name + half)); !ok || err != nil {
				t.Errorf("%s is lost: %v", name+half, err)
			}
		}
	}
	records, err := db.Records("")
	if err != nil || len(records)%2 != 0 {
		t.Errorf("%d records, %v: half of a batch", len(records), err)
	}
}

func TestWriter(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	store := mesh.NewStore(mesh.DefaultMeshConfig())
	fail := error(nil)
	w := NewWriter(db, func(changes []mesh.Change) (uint64, map[mesh.Ref][]string, error) {
		if fail != nil {
			return 0, nil, fail
		}
		err := store.Apply(changes, nil)
		return store.Snapshot().Revision, nil, err
	})
	api := Item{Object: svc("api"), Document: put("api", "1", "").Document}
	out, err := w.Write(Batch{Put: []Item{api}})
	got, _ := store.Snapshot().Services.Lookup(service("api").Name)
	if err != nil || out.Revision != 1 || got == nil || got.Generation != 1 || len(got.VirtualIPs) != 2 {
		t.Fatalf("%+v, %v, %+v", out, err, got)
	}
	fail = errors.New("no")
	again := Item{Object: svc("api"), Document: put("api", "2", "").Document}
	if _, err := w.Write(Batch{Put: []Item{again}}); !errors.Is(err, fail) {
		t.Fatalf("error %v", err)
	}
	fail = nil
	again.Object = svc("api")
	if _, err := w.Write(Batch{Put: []Item{again}}); err != nil || store.Snapshot().Services.Get(service("api").Name).Generation != 2 {
		t.Fatalf("a second try did not repair: %v", err)
	}
	file := Item{Object: svc("file"), Document: put("file", "1", "").Document, File: "/a/x.yaml"}
	if _, err := w.Write(Batch{Put: []Item{file}}); err != nil {
		t.Fatal(err)
	}
	decode := func(doc []byte) (mesh.Object, error) { return svc("api"), nil }
	changes, bad, err := w.Load("/b", decode)
	if err != nil || bad != nil || len(changes) != 1 || len(changes[0].Object.(*mesh.Service).VirtualIPs) != 2 {
		t.Fatalf("Load: %+v, %v, %v", changes, bad, err)
	}
	if records, err := db.Records(""); err != nil || len(records) != 1 {
		t.Fatalf("the file's object is still there: %v, %v", records, err)
	}
}
