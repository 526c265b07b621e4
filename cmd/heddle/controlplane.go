package main

import (
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/serve"
)

func controlplaneCommand(e *env) *cobra.Command {
	config := serve.DefaultConfig()
	var debug bool
	var cluster clusterFlags
	c := &cobra.Command{
		Use:   "controlplane [flags]",
		Short: "Run the control plane",
		Long: `Serves configuration and identities to sidecars, and objects to people. Everything it
must remember is in --state: objects, registrations, virtual IPs and the CA's root key.

With --kubernetes it is the control plane of a cluster: objects are the cluster's, the
root key is in a Secret, and any number of replicas may run.`,
		Example: `  heddle controlplane --state /var/lib/heddle/controlplane --objects ./mesh`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			config.Log = e.logger(level)
			if config.StateDir == "" {
				config.StateDir = filepath.Join(stateHome(), "controlplane")
			}
			if config.Socket == "" {
				config.Socket = filepath.Join(config.StateDir, "controlplane.sock")
			}
			if cluster.on {
				if err := cluster.join(c.Context(), &config); err != nil {
					return err
				}
			}
			if err := config.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			return serve.Run(c.Context(), config)
		},
	}
	fs := c.Flags()
	fs.StringVar(&config.StateDir, "state", "", "private folder for everything that must survive a restart (default under the user's state folder)")
	fs.StringVar(&config.Socket, "socket", "", "Unix socket for people and for first identities (default STATE/controlplane.sock)")
	fs.StringVar(&config.Listen, "listen", config.Listen, "ADDRESS:PORT for sidecars, with mutual TLS")
	fs.StringVar(&config.Objects, "objects", "", "folder of YAML objects to watch")
	fs.StringVar(&config.Metrics, "metrics", config.Metrics, "ADDRESS:PORT for Prometheus; empty for none")
	fs.StringVar(&config.OTLP, "otlp", "", "HOST:PORT that takes the control plane's own traces as OTLP over gRPC")
	fs.StringVar(&config.TrustDomain, "trust-domain", config.TrustDomain, "trust domain of the mesh; cannot be changed later")
	fs.StringVar(&config.ClusterDomain, "cluster-domain", config.ClusterDomain, "domain that services' names end with")
	fs.TextVar(&config.Virtual.VirtualV4, "virtual-v4", config.Virtual.VirtualV4, "range of services' virtual IPv4 addresses")
	fs.TextVar(&config.Virtual.VirtualV6, "virtual-v6", config.Virtual.VirtualV6, "range of services' virtual IPv6 addresses")
	fs.DurationVar(&config.SVIDTTL, "svid-ttl", config.SVIDTTL, "life of an SVID; it is renewed at half of it")
	fs.DurationVar(&config.Grace, "grace", config.Grace, "time that a workload stays registered after its sidecar is gone without a word")
	fs.BoolVar(&config.OnDemand, "on-demand", false, "give each proxy the services that its workload uses, when it first does, in place of all")
	cluster.add(fs)
	fs.BoolVar(&debug, "debug", false, "log what is of use to Heddle's developers only")
	return c
}
