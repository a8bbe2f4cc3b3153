// The crop that the networks expect, and the way back: the same integers as facial_keypoints/geometry.py.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

using Matrix = std::array<double, 6>;  // a, b, tx, c, d, ty: pixels of the photo -> pixels of the crop

struct Gray {
  int width, height;
  std::vector<uint8_t> pixels;
  int at(int x, int y) const {  // black outside
    return x < 0 || y < 0 || x >= width || y >= height ? 0 : pixels[size_t(y) * width + x];
  }
};

// The square around a tight box (left, top, width, height): `scale` times its longer side.
inline Matrix crop_matrix(const std::array<double, 4>& box, int side, double scale) {
  const double ratio = side / (scale * std::max(box[2], box[3])), middle = (side - 1) / 2.0;
  const double x = box[0] + box[2] / 2, y = box[1] + box[3] / 2;
  return {ratio, 0, middle - ratio * x, 0, ratio, middle - ratio * y};
}

inline Matrix inverted(const Matrix& m) {
  const double s = 1 / (m[0] * m[4] - m[1] * m[3]);
  const double a = m[4] * s, b = -m[1] * s, c = -m[3] * s, d = m[0] * s;
  return {a, b, -a * m[2] - b * m[5], c, d, -c * m[2] - d * m[5]};
}

// Bilinear, with places in 32nds of a pixel. Shrink photos first whose faces are more than twice as
// large as the crop: by area averages, or points lose accuracy.
inline std::vector<uint8_t> crop_image(const Gray& photo, const Matrix& matrix, int side) {
  const Matrix back = inverted(matrix);
  std::vector<uint8_t> crop(size_t(side) * side);
  for (int v = 0; v < side; v++) {
    const int x0 = int(std::nearbyint((back[1] * v + back[2]) * 1024)) + 16;
    const int y0 = int(std::nearbyint((back[4] * v + back[5]) * 1024)) + 16;
    for (int u = 0; u < side; u++) {
      const int x = (x0 + int(std::nearbyint(back[0] * u * 1024))) >> 5;
      const int y = (y0 + int(std::nearbyint(back[3] * u * 1024))) >> 5;
      const int left = x >> 5, top = y >> 5, fx = x & 31, fy = y & 31;
      const int value = (photo.at(left, top) * (32 - fx) + photo.at(left + 1, top) * fx) * (32 - fy) +
                        (photo.at(left, top + 1) * (32 - fx) + photo.at(left + 1, top + 1) * fx) * fy;
      crop[size_t(v) * side + u] = uint8_t((value + 512) >> 10);
    }
  }
  return crop;
}

// Targets of the network (-1 and 1 are the edges of the crop) -> pixels of the photo.
inline std::array<double, 2> to_point(float x, float y, const Matrix& matrix, int side) {
  const Matrix back = inverted(matrix);
  const double u = ((x + 1.0) * side - 1) / 2, v = ((y + 1.0) * side - 1) / 2;
  return {back[0] * u + back[1] * v + back[2], back[3] * u + back[4] * v + back[5]};
}
