package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/envoy"
	"github.com/heddle-mesh/heddle/proxy/probe"
	"github.com/heddle-mesh/heddle/proxy/sidecar"
)

// Places in the sidecar container of a pod. The injector makes the volumes.
const (
	podRunDir    = "/run/heddle"
	podTokenFile = "/var/run/secrets/heddle/token"
	podEnvoy     = "/usr/local/bin/envoy"
	podMetrics   = ":15020"
)

// Variables by which the injector and the kubelet say who the pod is.
const (
	podNameVariable      = "HEDDLE_POD_NAME"
	podNamespaceVariable = "HEDDLE_POD_NAMESPACE"
	podIPsVariable       = "HEDDLE_POD_IPS"         // status.podIPs, with commas
	podAccountVariable   = "HEDDLE_SERVICE_ACCOUNT" // spec.serviceAccountName
	podZoneVariable      = "HEDDLE_ZONE"            // the pod's zone; empty where it is not known
	podRootsVariable     = "HEDDLE_ROOTS"           // SHA-256 of root certificates, with commas
	podProbesVariable    = "HEDDLE_PROBES"          // JSON, see proxy/probe
)

// buildPod makes the configuration of a pod's sidecar, of flags and environment.
func (f *sidecarFlags) buildPod(config sidecar.Config, command []string) (_ sidecar.Config, err error) {
	if f.service != "" || f.name != "" || len(f.ports) > 0 || len(command) > 0 {
		return config, errors.New("--pod: who the sidecar is comes from the environment, and the application is another container: no --service, --name, --port or command")
	}
	if f.ingress && f.verifyCapture {
		return config, errors.New("--pod: nothing of an ingress is captured; --ingress and --verify-capture exclude each other")
	}
	for _, name := range []string{podNameVariable, podNamespaceVariable, podAccountVariable, podIPsVariable, podRootsVariable} {
		if os.Getenv(name) == "" {
			return config, fmt.Errorf("--pod: %s is not set; it is for containers that the injector makes", name)
		}
	}
	config.ID, err = spiffeid.New(f.trustDomain, os.Getenv(podNamespaceVariable), os.Getenv(podAccountVariable))
	if err != nil {
		return config, fmt.Errorf("--pod: identity of %s and %s: %w", podNamespaceVariable, podAccountVariable, err)
	}
	config.Workload, config.Capture, config.Metrics = os.Getenv(podNameVariable), capture.Pod, podMetrics
	config.Zone = cmp.Or(config.Zone, os.Getenv(podZoneVariable))
	config.RunDir = cmp.Or(config.RunDir, podRunDir)
	config.StateDir = cmp.Or(config.StateDir, filepath.Join(config.RunDir, "state"))
	config.Envoy = cmp.Or(os.Getenv(envoy.Variable), podEnvoy)
	if len(f.controlPlane) == 1 && !strings.HasPrefix(f.controlPlane[0], "unix:") {
		config.Address = f.controlPlane[0]
	}
	pod := &sidecar.Pod{TokenFile: cmp.Or(f.tokenFile, podTokenFile), Verify: f.verifyCapture, Gateway: f.ingress, Hold: f.hook}
	config.Pod = pod
	for s := range strings.SplitSeq(os.Getenv(podIPsVariable), ",") {
		addr, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return config, fmt.Errorf("--pod: %s: %w", podIPsVariable, err)
		}
		pod.Addresses = append(pod.Addresses, addr.Unmap())
	}
	if pod.Roots, err = attest.ParseFingerprints(os.Getenv(podRootsVariable)); err != nil {
		return config, fmt.Errorf("--pod: %s: %w", podRootsVariable, err)
	}
	if pod.Probes, err = probe.Parse(os.Getenv(podProbesVariable)); err != nil {
		return config, fmt.Errorf("--pod: %s: %w", podProbesVariable, err)
	}
	return config, os.MkdirAll(config.StateDir, 0o700)
}
