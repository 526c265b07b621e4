package local

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// workload is one instance of a service.
type workload struct {
	Name    string // ENTRY-N
	Entry   string
	Zone    string
	First   bool // of its service: it gets the published ports
	Service Service
}

// workloads lists the instances, by name.
func (c *Config) workloads() []workload {
	var out []workload
	for _, entry := range slices.Sorted(maps.Keys(c.Services)) {
		s := c.Services[entry]
		s.Service = cmp.Or(s.Service, entry)
		n := cmp.Or(s.Replica, max(len(s.Zones), 1))
		for i := range n {
			w := workload{Name: fmt.Sprintf("%s-%d", entry, i), Entry: entry, First: i == 0, Service: s}
			if len(s.Zones) > 0 {
				w.Zone = s.Zones[i%len(s.Zones)]
			}
			out = append(out, w)
		}
	}
	return out
}

// level is how many services an entry waits for, one after the other.
func (c *Config) level(entry string) int {
	level := 0
	for _, after := range c.Services[entry].After {
		level = max(level, 1+c.level(after)) // there are no cycles
	}
	return level
}

// depth is the highest level.
func (c *Config) depth() int {
	depth := 0
	for entry := range c.Services {
		depth = max(depth, c.level(entry))
	}
	return depth
}

// expand replaces ${NAME} in a command or a value. Names are STATE, BIN, PART_x, PORT_n
// and, as SERVICE:PORT, what is under "uses".
func expand(text string, names map[string]string) (string, error) {
	var missing []string
	out := os.Expand(text, func(name string) string {
		v, ok := names[name]
		if !ok {
			missing = append(missing, name)
		}
		return v
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("%q: there is no ${%s}; there are %s", text, missing[0], strings.Join(slices.Sorted(maps.Keys(names)), ", "))
	}
	return out, nil
}

// fieldsOf lists the YAML fields of a struct.
func fieldsOf(v any) []string {
	var out []string
	t := reflect.TypeOf(v)
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			out = append(out, name)
		}
	}
	return out
}
