package bootstrap_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/bootstrap"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden makes each testdata file's config.json into bootstrap.json and the
// command line, compares, and has Envoy accept it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := bootstrap.DefaultConfig()
			decode := json.NewDecoder(bytes.NewReader(a.Files[0].Data))
			decode.DisallowUnknownFields()
			if err := decode.Decode(&c); err != nil {
				t.Fatal(err)
			}
			config := encode(t, c)
			command := strings.Join(bootstrap.Command(c, "bootstrap.json"), " ") + "\n"
			got := &txtar.Archive{Comment: a.Comment, Files: []txtar.File{
				a.Files[0], {Name: "bootstrap.json", Data: config}, {Name: "command", Data: []byte(command)},
			}}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); diff != "" {
				t.Errorf("run with -update if this is meant (-want +got):\n%s", diff)
			}
			if err := envoy.Validate(t.Context(), partstest.Envoy(t), config); err != nil {
				t.Error(err)
			}
		})
	}
}

func encode(t *testing.T, c bootstrap.Config) []byte {
	t.Helper()
	b, err := bootstrap.Bootstrap(c)
	if err != nil {
		t.Fatal(err)
	}
	config, err := bootstrap.JSON(b)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func valid() bootstrap.Config {
	c := bootstrap.DefaultConfig()
	c.ID, c.Cluster, c.AdminSocket, c.AgentSocket = "a", "b", "/a.sock", "/b.sock"
	return c
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for want, spoil := range map[string]func(*bootstrap.Config){
		"id is empty":                   func(c *bootstrap.Config) { c.ID = "" },
		"cluster is empty":              func(c *bootstrap.Config) { c.Cluster = "" },
		"zone \"\\xff\"":                func(c *bootstrap.Config) { c.Zone = "\xff" },
		"metadata \"k\"":                func(c *bootstrap.Config) { c.Metadata = map[string]string{"k": "\xff"} },
		"admin socket \"x\"":            func(c *bootstrap.Config) { c.AdminSocket = "x" },
		"of at most 107 bytes":          func(c *bootstrap.Config) { c.AgentSocket = "/" + strings.Repeat("x", 107) },
		"are the same":                  func(c *bootstrap.Config) { c.AgentSocket = c.AdminSocket },
		"concurrency 0":                 func(c *bootstrap.Config) { c.Concurrency = 0 },
		"max connections is 0":          func(c *bootstrap.Config) { c.MaxConnections = 0 },
		"max heap of 5 bytes":           func(c *bootstrap.Config) { c.MaxHeap = 5 },
		"drain time 1ms":                func(c *bootstrap.Config) { c.Drain = 1e6 },
		"log level \"loud\" is not one": func(c *bootstrap.Config) { c.LogLevel = "loud" },
	} {
		c := valid()
		spoil(&c)
		if _, err := bootstrap.Bootstrap(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q in it", err, want)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "envoy.json")
	for range 2 { // the second time replaces it
		if err := bootstrap.Write(valid(), file, os.Geteuid()); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	got, err := os.ReadFile(file)
	if diff := cmp.Diff(string(encode(t, valid())), string(got)); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
	if err := bootstrap.Write(valid(), filepath.Join(dir, "absent", "x"), -1); err == nil {
		t.Error("no error for a directory that is not there")
	}
}

// FuzzConfig checks that what Validate lets through can be encoded as JSON.
func FuzzConfig(f *testing.F) {
	f.Add("api-1", "api.default", "z", "/a", "/b", uint32(7))
	f.Fuzz(func(t *testing.T, id, cluster, zone, admin, agent string, mark uint32) {
		c := valid()
		c.ID, c.Cluster, c.Zone, c.AdminSocket, c.AgentSocket, c.Mark = id, cluster, zone, admin, agent, mark
		b, err := bootstrap.Bootstrap(c)
		if err != nil {
			return
		}
		data, err := bootstrap.JSON(b)
		if err != nil || !json.Valid(data) {
			t.Errorf("%+v: %v", c, err)
		}
	})
}
