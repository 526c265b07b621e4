// Package bootstrap writes the configuration that Envoy starts with: who it is,
// where its agent listens, and what must be settled before any dynamic
// configuration. Everything about the mesh comes later, over ADS. The package
// is pure but for Write; proxy/supervise starts Envoy with the result.
package bootstrap

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Names of the static clusters. All three lead to the agent's socket, over
// connections of their own, so that neither configuration nor traces hold up
// a certificate.
const (
	AgentCluster = "agent" // ADS and, for config sources that name it, SDS
	SDSCluster   = "sds"   // SDS
	OTLPCluster  = "otlp"  // OTLP over gRPC
)

// SelfCluster names the cluster of the proxies that are of one identity. Only where our zone is
// known there is one; its endpoints come from the control plane.
const SelfCluster = "self"

// MeshLayer names the layer of Envoy's runtime that holds the mesh's settings.
const MeshLayer = "mesh"

// Config is what differs between the Envoys of a mesh.
type Config struct {
	ID       string            // node.id, unique in the mesh
	Cluster  string            // node.cluster: the service, "api.default"
	Region   string            // node.locality; may be ""
	Zone     string            // node.locality; may be ""
	Metadata map[string]string // node.metadata

	AdminSocket string // path of the admin interface's Unix socket; made by Envoy, 0600
	AgentSocket string // path of the agent's Unix socket

	// Mark is set on every socket to an upstream (SO_MARK) when not 0, so that
	// capture rules can tell Envoy's connections from the application's. It
	// needs CAP_NET_ADMIN in the network namespace's user namespace.
	Mark uint32

	Concurrency    int           // worker threads
	MaxConnections uint64        // from clients, in all
	MaxHeap        uint64        // bytes; near it Envoy sheds load rather than be killed
	Drain          time.Duration // time for peers to leave; whole seconds
	LogLevel       string        // one of LogLevels
}

// LogLevels are Envoy's, from most to least.
var LogLevels = []string{"trace", "debug", "info", "warning", "error", "critical", "off"}

// DefaultConfig has all that has a default.
func DefaultConfig() Config {
	return Config{
		Concurrency:    2,         // a sidecar serves one workload; 2 keep one slow callback from stopping all
		MaxConnections: 10_000,    // with its upstream half that is 20,000 of the usual 65,536 descriptors
		MaxHeap:        512 << 20, // 1,000 clusters take 120 MB with every statistic on
		Drain:          5 * time.Second,
		LogLevel:       "warning",
	}
}

// maxSocketPath is what fits into sun_path of unix(7), in bytes.
const maxSocketPath = 107

// Validate returns everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("bootstrap: "+format, args...)) }
	for _, s := range []struct{ name, value string }{{"id", c.ID}, {"cluster", c.Cluster}} {
		if s.value == "" {
			bad("%s is empty", s.name)
		}
	}
	for _, s := range []struct{ name, value string }{{"id", c.ID}, {"cluster", c.Cluster}, {"region", c.Region}, {"zone", c.Zone}} {
		if !utf8.ValidString(s.value) || len(s.value) > 253 {
			bad("%s %.40q… is not valid UTF-8 of at most 253 bytes", s.name, s.value)
		}
	}
	for k, v := range c.Metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			bad("metadata %q is not valid UTF-8", k)
		}
	}
	for _, s := range []struct{ name, path string }{{"admin socket", c.AdminSocket}, {"agent socket", c.AgentSocket}} {
		if !filepath.IsAbs(s.path) || len(s.path) > maxSocketPath || strings.ContainsRune(s.path, 0) || !utf8.ValidString(s.path) {
			bad("%s %q is not an absolute path of at most %d bytes", s.name, s.path, maxSocketPath)
		}
	}
	if c.AdminSocket == c.AgentSocket {
		bad("admin and agent socket are the same")
	}
	if c.Concurrency < 1 || c.Concurrency > 1024 {
		bad("concurrency %d is not between 1 and 1024", c.Concurrency)
	}
	if c.MaxConnections < 1 {
		bad("max connections is 0")
	}
	if c.MaxHeap < 32<<20 {
		bad("max heap of %d bytes is less than 32 MiB, which Envoy takes idle", c.MaxHeap)
	}
	if c.Drain < time.Second || c.Drain > time.Hour {
		bad("drain time %s is not between 1s and 1h", c.Drain)
	}
	if !slices.Contains(LogLevels, c.LogLevel) {
		bad("log level %q is not one of %s", c.LogLevel, strings.Join(LogLevels, ", "))
	}
	return errors.Join(errs...)
}

// Command returns Envoy's arguments for the bootstrap in file.
func Command(c Config, file string) []string {
	return []string{
		"--config-path", file,
		// Several Envoys on one machine would meet in shared memory.
		"--disable-hot-restart",
		"--concurrency", strconv.Itoa(c.Concurrency),
		"--drain-time-s", strconv.Itoa(int(c.Drain / time.Second)),
		"--log-level", c.LogLevel,
		// Somebody may be reading along; the default is 10 seconds.
		"--file-flush-interval-msec", "1000",
	}
}
