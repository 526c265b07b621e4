package cluster

import (
	"path/filepath"

	"github.com/heddle-mesh/heddle/install/image"
)

// Images of the cluster's own.
const (
	pauseImage   = "cluster.local/pause:1"
	corednsImage = "cluster.local/coredns:1"
)

// writeImages writes the archives of the cluster's own images.
func writeImages(dir string, p Programs) (pause, dns string, err error) {
	pause, dns = filepath.Join(dir, "pause.tar"), filepath.Join(dir, "coredns.tar")
	if err := image.WriteFile(pause, image.Image{
		Name: pauseImage, Files: []image.File{{From: p["pause"], To: "/pause", Mode: 0o755}}, Entrypoint: []string{"/pause"},
	}); err != nil {
		return "", "", err
	}
	return pause, dns, image.WriteFile(dns, image.Image{
		Name: corednsImage, Files: []image.File{{From: p["coredns"], To: "/coredns", Mode: 0o755}}, Entrypoint: []string{"/coredns"},
	})
}
