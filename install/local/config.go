package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// Config is a heddle.yaml.
type Config struct {
	// Name of the project; its state folder is named so.
	Name        string             `yaml:"name"`
	TrustDomain string             `yaml:"trustDomain"`
	Objects     string             `yaml:"objects"`  // folder of mesh objects, relative to the file
	SVIDTTL     time.Duration      `yaml:"svidTTL"`  // life of an SVID, such as 20m; 0 is the control plane's default
	OnDemand    bool               `yaml:"onDemand"` // proxies hold the services that their workloads use, not all
	Apply       []string           `yaml:"apply"`    // files of objects to apply once, which commands may change
	Jaeger      bool               `yaml:"jaeger"`   // run one, for traces
	Metrics     string             `yaml:"metrics"`  // ADDRESS:PORT for Prometheus, on the machine; see serveMetrics
	Parts       []string           `yaml:"parts"`    // programs to fetch: nginx, postgres
	Services    map[string]Service `yaml:"services"`

	dir string // of the file
}

// Service is one kind of workload: its instances run the same command.
type Service struct {
	Service string            `yaml:"service"` // identity; default the entry's name
	Labels  map[string]string `yaml:"labels"`
	Ports   []uint16          `yaml:"ports"`
	Zones   []string          `yaml:"zones"`    // an instance in each, round and round
	Replica int               `yaml:"replicas"` // default one per zone
	Command []string          `yaml:"command"`
	Env     map[string]string `yaml:"env"`
	User    string            `yaml:"user"`    // as root: who runs the command
	Ready   string            `yaml:"ready"`   // path that answers when the program is ready
	Uses    []string          `yaml:"uses"`    // SERVICE:PORT that it calls; needed without capture
	Publish []string          `yaml:"publish"` // ADDRESS:PORT:PORT, on the machine
	After   []string          `yaml:"after"`   // entries that must be ready before
}

// maxConfig bounds a heddle.yaml, in bytes.
const maxConfig = 1 << 20

// Load reads a heddle.yaml. The error names the line and the field.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.dir, err = filepath.Abs(filepath.Dir(path))
	return c, err
}

// Parse reads the text of a heddle.yaml.
func Parse(data []byte) (*Config, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf("larger than %d bytes", maxConfig)
	}
	c := &Config{TrustDomain: "mesh.local"}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty; it needs name and services")
		}
		return nil, explain(err)
	}
	return c, c.validate()
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type local\.(\w+)`)

// explain turns the decoder's words for an unknown field into ours.
func explain(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	return errors.New(unknownField.ReplaceAllStringFunc(text, func(s string) string {
		m := unknownField.FindStringSubmatch(s)
		fields := fieldsOf(Config{})
		if m[2] == "Service" {
			fields = fieldsOf(Service{})
		}
		return fmt.Sprintf("unknown field %q%s", m[1], manifest.Suggest(m[1], fields))
	}))
}

var projectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !projectName.MatchString(c.Name) {
		bad("name: %q is not a name of at most 32 lower case letters, digits and dashes", c.Name)
	}
	if c.SVIDTTL < 0 {
		bad("svidTTL: %s is negative", c.SVIDTTL)
	}
	if len(c.Services) == 0 {
		bad("services: there are none")
	}
	published := map[string]string{}
	if c.Metrics != "" {
		if at, err := netip.ParseAddrPort(c.Metrics); err != nil || at.Port() == 0 {
			bad("metrics: %q: want ADDRESS:PORT, such as 127.0.0.1:15020", c.Metrics)
		}
		published[c.Metrics] = "metrics"
	}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s := c.Services[name]
		if !projectName.MatchString(name) {
			bad("services.%s: not a name of at most 32 lower case letters, digits and dashes", name)
		}
		if len(s.Command) == 0 {
			bad("services.%s.command: is empty; name a program and its arguments", name)
		}
		if s.Replica < 0 || s.Replica > 100 {
			bad("services.%s.replicas: %d is not from 0 to 100", name, s.Replica)
		}
		for _, after := range s.After {
			if _, ok := c.Services[after]; !ok {
				bad("services.%s.after: there is no service %q", name, after)
			}
		}
		for _, u := range s.Uses {
			if _, _, err := splitPort(u); err != nil {
				bad("services.%s.uses: %w", name, err)
			}
		}
		for _, p := range s.Publish {
			address, _, err := parsePublish(p)
			if err != nil {
				bad("services.%s.publish: %w", name, err)
			} else if other := published[address]; other != "" {
				bad("services.%s.publish: %s is published by %s already", name, address, other)
			}
			published[address] = name
		}
	}
	if cycle := c.cycle(); cycle != "" {
		bad("services.%s.after: waits for itself", cycle)
	}
	return errors.Join(errs...)
}

// cycle names a service that waits for itself, or is "".
func (c *Config) cycle() string {
	for start := range c.Services {
		seen := map[string]bool{}
		queue := slices.Clone(c.Services[start].After)
		for len(queue) > 0 {
			next := queue[0]
			queue = queue[1:]
			if next == start {
				return start
			}
			if !seen[next] {
				seen[next] = true
				queue = append(queue, c.Services[next].After...)
			}
		}
	}
	return ""
}

// splitPort reads SERVICE:PORT.
func splitPort(s string) (service string, port uint16, err error) {
	service, text, ok := strings.Cut(s, ":")
	n, perr := strconv.ParseUint(text, 10, 16)
	if !ok || service == "" || perr != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: want SERVICE:PORT, such as api:80", s)
	}
	return service, uint16(n), nil
}

// parsePublish reads ADDRESS:PORT:PORT, the machine's and the program's.
func parsePublish(s string) (address string, port uint16, err error) {
	i := strings.LastIndex(s, ":")
	if i < 0 {
		return "", 0, fmt.Errorf("%q: want ADDRESS:PORT:PORT, such as 127.0.0.1:8080:80", s)
	}
	n, perr := strconv.ParseUint(s[i+1:], 10, 16)
	if _, aerr := netip.ParseAddrPort(s[:i]); aerr != nil || perr != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: want ADDRESS:PORT:PORT, such as 127.0.0.1:8080:80", s)
	}
	return s[:i], uint16(n), nil
}
