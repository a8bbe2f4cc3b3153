// 68 keypoints of the face in a box of a PGM photo, by ONNX Runtime (with -DOPENVINO: by OpenVINO).
// Usage: keypoints photo.pgm left top width height side crop_scale [models7.onnx]
// Without a network it prints the crop as a PGM.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>

#include "crop.hpp"

#if defined(OPENVINO)
#include <openvino/openvino.hpp>
#elif defined(ONNXRUNTIME)
#include <onnxruntime_cxx_api.h>
#endif

static Gray read_pgm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int width, height, most;
  if (!(file >> magic >> width >> height >> most) || magic != "P5" || most != 255) {
    throw std::runtime_error(std::string(path) + ": not a PGM file of 8 bits");
  }
  file.get();
  Gray photo{width, height, std::vector<uint8_t>(size_t(width) * height)};
  if (!file.read(reinterpret_cast<char*>(photo.pixels.data()), std::streamsize(photo.pixels.size()))) {
    throw std::runtime_error(std::string(path) + ": truncated");
  }
  return photo;
}

// Gray levels in 0…1, (1, 1, side, side) -> targets (68, 2)
static std::vector<float> predict(const char* network, std::vector<float>& images, int side) {
#if defined(OPENVINO)
  ov::Core core;
  auto request = core.compile_model(network, "CPU").create_infer_request();
  request.set_input_tensor(ov::Tensor(ov::element::f32, {1, 1, size_t(side), size_t(side)}, images.data()));
  request.infer();
  const ov::Tensor found = request.get_tensor("targets");
  return {found.data<float>(), found.data<float>() + found.get_size()};
#elif defined(ONNXRUNTIME)
  Ort::Env environment;
  Ort::Session session(environment, network, Ort::SessionOptions{});
  const int64_t shape[] = {1, 1, side, side};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape, 4);
  const char *inputs[] = {"images"}, *outputs[] = {"targets"};
  auto found = session.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);
  const float* values = found[0].GetTensorData<float>();
  return {values, values + found[0].GetTensorTypeAndShapeInfo().GetElementCount()};
#else
  throw std::runtime_error("built without a runtime: compile with -DONNXRUNTIME or -DOPENVINO");
#endif
}

int main(int count, char** words) try {
  if (count < 8) throw std::runtime_error("usage: keypoints PGM left top width height side scale [ONNX]");
  const Gray photo = read_pgm(words[1]);
  const int side = std::atoi(words[6]);
  const Matrix matrix = crop_matrix(
      {std::atof(words[2]), std::atof(words[3]), std::atof(words[4]), std::atof(words[5])}, side,
      std::atof(words[7]));
  const auto crop = crop_image(photo, matrix, side);
  if (count == 8) {
    std::printf("P5 %d %d 255\n", side, side);
    std::fwrite(crop.data(), 1, crop.size(), stdout);
    return 0;
  }
  std::vector<float> images(crop.size());
  for (size_t i = 0; i < crop.size(); i++) images[i] = crop[i] / 255.0f;
  const auto targets = predict(words[8], images, side);
  for (size_t i = 0; i + 1 < targets.size(); i += 2) {
    const auto point = to_point(targets[i], targets[i + 1], matrix, side);
    std::printf("%.3f %.3f\n", point[0], point[1]);
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 1;
}
