package state

import (
	"slices"
	"testing"
)

// TestUses stores what accounts use, and finds it again when it is opened the next time.
func TestUses(t *testing.T) {
	dir := t.TempDir()
	open := func() *DB {
		t.Helper()
		db, err := Open(dir, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	want := []Use{{"shop/api", "shop/db"}, {"shop/web", "other/api"}, {"shop/web", "shop/api"}}
	for _, uses := range [][]Use{{want[2], want[0]}, {want[1], want[0]}, nil} {
		if err := db.AddUses(uses...); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got, err := db.Uses()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v %v, want %v", got, err, want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open()
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
