package shop_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/install/local"
)

// TestFiles reads the example's files as heddle does.
func TestFiles(t *testing.T) {
	if _, err := local.Load("heddle.yaml"); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob("*/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %q, %v", files, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := manifest.Parse(file, data, manifest.Options{})
		if err != nil {
			t.Error(err)
		}
		for _, o := range objects {
			names[o.Ref.String()] = true
		}
	}
	// Names that people and scripts rely on.
	for _, want := range []string{"Service default/frontend", "Service default/api", "Service default/db"} {
		if !names[want] {
			t.Errorf("there is no %s among %v", want, names)
		}
	}
}
