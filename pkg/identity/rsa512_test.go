// SPDX-License-Identifier: Apache-2.0

package identity

import "encoding/hex"

// rsa512 is a signing request for an RSA key of 512 bits, which crypto/rsa does not make.
var rsa512 = unhex("3081b930650201003000305c300d06092a864886f70d0101010500034b003048024100bdeed4e7e8" +
	"bc5ab7403e99ae8339aee9feaffcf821781ec6764d8fac50a52f6c0bb5a13d6c6c147358d9ec6e15" +
	"fb1bad05967ca6030ea721e9a92e421096c0cb0203010001a000300d06092a864886f70d01010b05" +
	"00034100a5ee311ef8846e2df13d2b49fef2cea39bfc6b939ecaabdd10ed5ff15d80bf02fe4755fa" +
	"9124847f65c4a1b6da5b9a325260b60f50817b3a03788296b453ebde")

func unhex(s string) []byte {
	data, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return data
}
