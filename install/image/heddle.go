package image

import "os"

// Heddle is the image of the control plane and of sidecars: the program heddle, Envoy with
// the libraries it is linked to, and nothing else; no shell, no package manager. User 1337
// is the one whose connections the capture rules leave alone.
func Heddle(name, heddle, envoy string) (Image, error) {
	libraries, err := Libraries(envoy)
	if err != nil {
		return Image{}, err
	}
	return Image{
		Name: name,
		Files: append(libraries,
			File{From: heddle, To: "/usr/local/bin/heddle", Mode: 0o755},
			File{From: envoy, To: "/usr/local/bin/envoy", Mode: 0o755}),
		Dirs: []Dir{
			{Path: "/tmp", Mode: 0o777 | os.ModeSticky},
			{Path: "/run/heddle", Mode: 0o755, Owner: 1337}, {Path: "/var/lib/heddle", Mode: 0o700, Owner: 1337},
		},
		Entrypoint: []string{"/usr/local/bin/heddle"},
		User:       "1337:1337",
		Env:        []string{"PATH=/usr/local/bin", "HEDDLE_ENVOY=/usr/local/bin/envoy"},
	}, nil
}
