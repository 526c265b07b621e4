package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/envoy"
	"github.com/heddle-mesh/heddle/proxy/sidecar"
)

// sidecarFlags are the flags of "heddle sidecar" as they are written.
type sidecarFlags struct {
	service, namespace, name, trustDomain, zone string
	ports                                       []string
	labels                                      map[string]string
	controlPlane                                []string
	tokenFile, capture                          string
	upstreams, publish                          []string
	config                                      sidecar.Config
	pod, ingress, verifyCapture, debug          bool
	hook                                        time.Duration
}

func sidecarCommand(e *env) *cobra.Command {
	f := sidecarFlags{config: sidecar.Config{
		Network: capture.DefaultNetworkConfig(), ClusterDomain: defaultClusterDomain,
		Resolvconf: "/etc/resolv.conf",
		// Long enough for every peer to learn of the end, short enough for a roll-out.
		Drain: 5 * time.Second,
	}}
	c := &cobra.Command{
		Use:   "sidecar --service NAME --port PORT [flags] -- COMMAND [ARG...]",
		Short: "Run a program with an Envoy beside it",
		Long: `Gives a program an identity and an Envoy that carries all of its traffic, and runs it
when that Envoy is ready. The exit code is the program's. On SIGTERM or SIGINT peers are
told to go elsewhere, then the program is stopped, then Envoy. A second one kills both.

Capture is how the traffic gets to Envoy:
  transparent  the program gets a network namespace of its own; needs root
  rootless     the same inside the user namespace that 'heddle up' makes
  explicit     nothing is captured: the program calls --upstream addresses
  auto         the first of them that this machine allows

With --pod it is the sidecar container of a Kubernetes pod, as the injector makes it: who
it is comes from the environment, the application is another container, and the capture
rules were loaded by 'heddle capture apply' or the CNI plugin.`,
		Example: `  heddle sidecar --service api --port 8080 --control-plane unix:/run/heddle/cp.sock --token-file t -- ./api
  heddle sidecar --service web --port 80 --capture explicit --upstream api:80=127.0.0.1:9001 ... -- ./web`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, command []string) error {
			config, err := f.build(c, e, command)
			if c.Context().Err() != nil {
				return nil // asked to end before it began
			}
			if err != nil {
				return &exitError{exitUsage, err}
			}
			config.Hurry = e.hurry
			code, err := sidecar.Run(c.Context(), config)
			if errors.Is(err, capture.ErrNotCaptured) {
				code = capture.ExitNotCaptured
			}
			if err != nil || code != 0 {
				return &exitError{max(code, exitFailure), err}
			}
			return nil
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.service, "service", "", "service that the workload is an instance of; its identity")
	fs.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of the service")
	fs.StringVar(&f.name, "name", "", "name of this instance, unique in the namespace (default SERVICE-HOST)")
	fs.StringVar(&f.trustDomain, "trust-domain", defaultTrustDomain, "trust domain of the mesh")
	fs.StringSliceVar(&f.ports, "port", nil, "port that the program listens on, as services know it; repeatable; for explicit capture PORT=LOCAL where it really listens")
	fs.StringToStringVar(&f.labels, "label", nil, "label of the workload, such as version=v2; repeatable")
	fs.StringVar(&f.zone, "zone", "", "zone that it runs in")
	fs.StringSliceVar(&f.controlPlane, "control-plane", nil, "control plane: unix:PATH for the first identity, HOST:PORT for all else; repeatable (default port "+defaultAddress+")")
	fs.StringVar(&f.tokenFile, "token-file", "", "file with a join token, see 'heddle token create'; with --pod, with the service account token")
	fs.StringVar(&f.capture, "capture", "auto", "auto, transparent, rootless or explicit")
	fs.StringSliceVar(&f.upstreams, "upstream", nil, "SERVICE:PORT=ADDRESS:PORT, for explicit capture; repeatable")
	fs.StringSliceVar(&f.publish, "publish", nil, "ADDRESS:PORT=PORT or fd:N=PORT: open a port of the program on the machine, past the mesh; repeatable")
	fs.BoolVar(&f.pod, "pod", false, "be the sidecar container of a Kubernetes pod")
	fs.BoolVar(&f.ingress, "ingress", false, "with --pod: be a proxy of the mesh's ingress, which no application stands beside and nothing is captured for")
	fs.BoolVar(&f.verifyCapture, "verify-capture", false, fmt.Sprintf("with --pod: end with exit code %d if the pod has no capture rules", capture.ExitNotCaptured))
	fs.DurationVar(&f.hook, "hook", 0, "with --pod: a hook holds back the application, for this time at the most; ended after it without ever having been ready, say why")
	fs.Lookup("hook").NoOptDefVal = sidecar.Hold.String()
	fs.StringVar(&f.config.ClusterDomain, "cluster-domain", f.config.ClusterDomain, "domain that services' names end with")
	fs.StringVar(&f.config.StateDir, "state", "", "private folder for identity and last good configuration (default under the user's state folder)")
	fs.StringVar(&f.config.RunDir, "run", "", "folder for sockets, which Envoy's user must be able to reach (default STATE/run, or /run/heddle as root)")
	fs.StringVar(&f.config.Status, "status", "", "path of the status socket (default in the run folder)")
	fs.StringVar(&f.config.User, "user", "", "user to run the program as: a name or UID[:GID]")
	fs.StringVar(&f.config.ReadyHTTP, "ready-http", "", "path that answers 2xx while the program is ready, asked every second (default: its ports accept connections, asked at the start)")
	fs.StringVar(&f.config.Collector, "otlp", "", "HOST:PORT that takes traces as OTLP over gRPC")
	fs.StringVar(&f.config.Metrics, "metrics", "0.0.0.0:15090", "address for Prometheus, inside the workload's network; empty for none")
	fs.StringVar(&f.config.LogLevel, "proxy-log-level", "warning", "Envoy's log level")
	fs.IntVar(&f.config.Concurrency, "proxy-concurrency", 2, "Envoy's worker threads")
	fs.DurationVar(&f.config.Drain, "drain", f.config.Drain, "time for peers to go elsewhere before the program is stopped")
	fs.BoolVar(&f.debug, "debug", false, "log what is of use to Heddle's developers only")
	f.config.Network.Flags(fs)
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name { // the injector's names
		case "log-level", "concurrency":
			name = "proxy-" + name
		case "collector":
			name = "otlp"
		}
		return pflag.NormalizedName(name)
	})
	return c
}

// build makes the sidecar's configuration of the flags.
func (f *sidecarFlags) build(c *cobra.Command, e *env, command []string) (sidecar.Config, error) {
	config := f.config
	level := slog.LevelInfo
	if f.debug {
		level = slog.LevelDebug
	}
	config.Log = e.logger(level)
	if f.pod {
		return f.buildPod(config, command)
	}
	if f.ingress {
		return config, errors.New("--ingress is for pods of Kubernetes; say --pod, too")
	}
	if f.service == "" {
		return config, errors.New("no service named; say --service NAME")
	}
	var err error
	if config.ID, err = spiffeid.New(f.trustDomain, f.namespace, f.service); err != nil {
		return config, err
	}
	if config.Workload = f.name; f.name == "" {
		host, _ := os.Hostname()
		config.Workload = f.service + "-" + strings.ToLower(strings.SplitN(host, ".", 2)[0])
	}
	config.Labels, config.Zone, config.Command = f.labels, f.zone, command
	for _, p := range f.ports {
		port, err := sidecar.ParsePort(p)
		if err != nil {
			return config, fmt.Errorf("--port: %w", err)
		}
		config.Ports = append(config.Ports, port)
	}
	if err := f.lists(&config); err != nil {
		return config, err
	}
	if err := f.places(c, &config); err != nil {
		return config, err
	}
	program, err := envoy.Obtain(c.Context(), os.Getenv(envoy.Variable), e.stderr)
	config.Envoy = program.Path
	return config, err
}

// lists parses the repeatable flags.
func (f *sidecarFlags) lists(config *sidecar.Config) error {
	for _, s := range f.upstreams {
		u, err := sidecar.ParseUpstream(s)
		if err != nil {
			return err
		}
		config.Upstreams = append(config.Upstreams, u)
	}
	for _, s := range f.publish {
		p, err := sidecar.ParsePublish(s)
		if err != nil {
			return err
		}
		config.Publish = append(config.Publish, p)
	}
	config.Address = defaultAddress
	for _, s := range f.controlPlane {
		if path, ok := strings.CutPrefix(s, "unix:"); ok {
			config.Socket = path
		} else {
			config.Address = s
		}
	}
	if f.tokenFile != "" {
		text, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return fmt.Errorf("read the join token: %w", err)
		}
		if config.Token, err = attest.ParseJoinToken(strings.TrimSpace(string(text))); err != nil {
			return fmt.Errorf("join token in %s: %w", f.tokenFile, err)
		}
	}
	for _, p := range append(defaultVirtualPrefixes(), config.Network.PrefixV4, config.Network.PrefixV6) {
		if p != (netip.Prefix{}) {
			config.Prefixes = append(config.Prefixes, p)
		}
	}
	return nil
}

// places fills in capture mode and folders.
func (f *sidecarFlags) places(c *cobra.Command, config *sidecar.Config) (err error) {
	if f.capture == "auto" {
		var reason string
		if config.Capture, reason = capture.Detect(c.Context()); config.Capture == capture.Rootless && !capture.InRootless() {
			config.Capture, reason = capture.Explicit, "a rootless sidecar of its own would be alone in its network; 'heddle up' makes one for all"
		}
		config.Log.Info("capture", "mode", config.Capture.String(), "reason", reason)
	} else if config.Capture, err = capture.ParseMode(f.capture); err != nil {
		return err
	}
	if config.StateDir == "" {
		config.StateDir = filepath.Join(stateHome(), "sidecars", f.namespace+"."+config.Workload)
	}
	if config.StateDir, err = filepath.Abs(config.StateDir); err != nil {
		return err
	}
	if config.RunDir == "" {
		config.RunDir = filepath.Join(config.StateDir, "run")
		if config.Capture == capture.Transparent {
			config.RunDir = filepath.Join("/run/heddle", shortHash(config.StateDir))
		}
	}
	config.Network.Mode, config.Network.Log = config.Capture, config.Log
	config.Network.StateDir = filepath.Join(runHome(), "network")
	return os.MkdirAll(config.StateDir, 0o700)
}
