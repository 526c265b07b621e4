package e2e

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	shopimages "github.com/heddle-mesh/heddle/install/examples/shop/images"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

const composeDir = "../../install/examples/shop"

// composeFile is as much of the Compose Specification as the example uses.
type composeFile struct {
	Name     string
	Services map[string]composeService
	Volumes  map[string]struct {
		DriverOpts map[string]string `yaml:"driver_opts"`
	}
	Mesh    any `yaml:"x-mesh"`
	Token   any `yaml:"x-token"`
	Sidecar any `yaml:"x-sidecar"`
	Program any `yaml:"x-program"`
}

type composeService struct {
	Image, Restart        string
	NetworkMode           string `yaml:"network_mode"`
	ReadOnly              bool   `yaml:"read_only"`
	Command               []string
	Tmpfs, Volumes, Ports []string
	Environment           map[string]string
	CapDrop               []string  `yaml:"cap_drop"`
	SecurityOpt           []string  `yaml:"security_opt"`
	StopGracePeriod       string    `yaml:"stop_grace_period"`
	DependsOn             dependsOn `yaml:"depends_on"`
}

// dependsOn is a list of services, or a map of them with conditions.
type dependsOn map[string]string

func (d *dependsOn) UnmarshalYAML(node *yaml.Node) error {
	*d = dependsOn{}
	if node.Kind == yaml.SequenceNode {
		var names []string
		err := node.Decode(&names)
		for _, name := range names {
			(*d)[name] = "service_started"
		}
		return err
	}
	var conditions map[string]struct{ Condition string }
	err := node.Decode(&conditions)
	for name, c := range conditions {
		(*d)[name] = c.Condition
	}
	return err
}

// TestComposeForm holds the compose example to the rules of the Compose Specification, and
// to the images that there are. Docker itself is not asked.
func TestComposeForm(t *testing.T) {
	c := readCompose(t)
	known := []string{"heddle.local/heddle:dev", shopimages.API, shopimages.DB, shopimages.Frontend, shopimages.Loadgen, shopimages.Jaeger}
	used := map[string]bool{}
	for name, s := range c.Services {
		if used[s.Image] = true; !slices.Contains(known, s.Image) {
			t.Errorf("%s: there is no image %s", name, s.Image)
		}
		if of, shared := strings.CutPrefix(s.NetworkMode, "service:"); shared {
			if _, ok := c.Services[of]; !ok || len(s.Ports) > 0 {
				t.Errorf("%s: network of %q, with ports %v", name, of, s.Ports)
			}
		}
		for on, condition := range s.DependsOn {
			dependency, ok := c.Services[on]
			if !ok || condition == "service_completed_successfully" == (dependency.Restart != "on-failure") {
				t.Errorf("%s depends on %s: %s, which restarts %q", name, on, condition, dependency.Restart)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, ok := c.Volumes[from]; strings.HasPrefix(from, ".") {
				if _, err := os.Stat(filepath.Join(composeDir, from)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			} else if !ok {
				t.Errorf("%s: volume %s is not declared", name, from)
			}
		}
	}
	if len(used) != len(known) {
		t.Errorf("of the images %v only %v are used", known, slices.Sorted(maps.Keys(used)))
	}
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(composeDir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c composeFile
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCompose does with the compose example what an engine does: it unpacks the images and
// runs their programs as their users, on read-only file systems with the volumes, in one
// network.
func TestCompose(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts and users; .ci/run has it")
	}
	partstest.Jaeger(t)
	e := newEngine(t)
	for name := range e.file.Services {
		e.start(name)
	}
	e.await("http://127.0.0.1:8080/", "<html")
	e.await("http://127.0.0.1:8080/api/", `"id"`)
	for _, version := range []string{"v1", "v2"} {
		e.await("http://127.0.0.1:8080/api/version", version)
	}
	for _, service := range []string{`"loadgen"`, `"frontend"`, `"api"`, `"heddle-controlplane"`} {
		e.await("http://127.0.0.1:16686/api/services", service)
	}
}
