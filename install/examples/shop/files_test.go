package shop_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/install/local"
	"github.com/heddle-mesh/heddle/telemetry/tracing"
)

// TestJaeger compares the three places that say how Jaeger is configured.
func TestJaeger(t *testing.T) {
	text, err := os.ReadFile("jaeger.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var compose, cluster, ours map[string]any
	objects, err := os.Open("kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer objects.Close()
	for d := yaml.NewDecoder(objects); cluster == nil; {
		var object struct {
			Kind string
			Data map[string]string
		}
		if err := d.Decode(&object); err != nil {
			t.Fatalf("kubernetes.yaml has no configuration of Jaeger: %v", err)
		}
		if object.Kind == "ConfigMap" {
			unmarshal(t, object.Data["config.yaml"], &cluster)
		}
	}
	everywhere := tracing.DefaultJaeger()
	everywhere.OTLP, everywhere.Query = netip.MustParseAddrPort("0.0.0.0:4317"), netip.MustParseAddrPort("0.0.0.0:16686")
	data, err := everywhere.YAML()
	if err != nil {
		t.Fatal(err)
	}
	unmarshal(t, string(text), &compose)
	unmarshal(t, strings.ReplaceAll(string(data), "0.0.0.0:", ":"), &ours) // all addresses, IPv6 too
	if diff := cmp.Diff(ours, compose); diff != "" {
		t.Errorf("jaeger.yaml is not what package tracing makes: %s", diff)
	}
	if diff := cmp.Diff(compose, cluster); diff != "" {
		t.Errorf("the ConfigMap is not jaeger.yaml: %s", diff)
	}
}

func unmarshal(t *testing.T, text string, into *map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

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
