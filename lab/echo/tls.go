// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// handshake is the first byte of a TLS connection.
const handshake = 0x16

// speaksTLS waits for the first byte.
func (c *peeked) speaksTLS() bool {
	b, err := c.r.Peek(1)
	return err == nil && b[0] == handshake
}

// secure takes up TLS, and returns the server name that the client asks for.
func (s *Server) secure(c net.Conn) (inner net.Conn, name string, err error) {
	config, err := s.tls()
	if err != nil {
		return nil, "", err
	}
	t := tls.Server(c, config)
	if err := t.Handshake(); err != nil {
		return nil, "", err
	}
	return t, t.ConnectionState().ServerName, nil
}

// selfSigned is a configuration with a certificate that nobody can verify, for
// clients that want to know who answers and not whether it is true.
func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}
